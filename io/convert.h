#ifndef MAGMAX_IO_CONVERT_H
#define MAGMAX_IO_CONVERT_H

#include <stdint.h>

/** Number types of stored weights; MM_ELEM_OTHER cannot be read as weights. */
typedef enum mm_elem_type {
    MM_ELEM_F64,
    MM_ELEM_F32,
    MM_ELEM_F16,
    MM_ELEM_BF16,
    MM_ELEM_OTHER
} mm_elem_type;

/** Bytes of one element; 0 for MM_ELEM_OTHER. */
int mm_elem_n_bytes(mm_elem_type type);

/**
 * Little-endian numbers to fp32: exact but for F64, which is rounded to the
 * nearest and becomes infinite beyond fp32's range.
 *
 * Memory   in: n_elems of the type, aligned to it; out: [n_elems]; no overlap.
 * Ranks    Local.
 * Timing   Blocking.
 * Errors   None; type is not MM_ELEM_OTHER.
 */
void mm_convert_to_f32(mm_elem_type type, const void *in, float *out,
                       int64_t n_elems);

/** Index of the first NaN or infinity, or -1. */
int64_t mm_first_nonfinite(const float *values, int64_t n_elems);

#endif
