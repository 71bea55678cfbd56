#ifndef MAGMAX_IO_WEIGHTS_NUMBER_TYPES_H
#define MAGMAX_IO_WEIGHTS_NUMBER_TYPES_H

#include <stdint.h>

/** Number types of stored weights; MM_ELEM_OTHER cannot be read as weights. */
typedef enum mm_elem_type {
    MM_ELEM_F64,
    MM_ELEM_F32,
    MM_ELEM_F16,
    MM_ELEM_BF16,
    MM_ELEM_F8_E4M3, /* no infinity, NaN is 0x7f and 0xff */
    MM_ELEM_F8_E5M2, /* the upper half of an F16 */
    MM_ELEM_F8_E8M0, /* a power of two, NaN is 0xff */
    MM_ELEM_I64,
    MM_ELEM_I32,
    MM_ELEM_I16,
    MM_ELEM_I8,
    MM_ELEM_U64,
    MM_ELEM_U32,
    MM_ELEM_U16,
    MM_ELEM_U8,
    MM_ELEM_BOOL,
    MM_ELEM_OTHER
} mm_elem_type;

/** Bytes of one element; 0 for MM_ELEM_OTHER. */
int mm_elem_n_bytes(mm_elem_type type);

/** "F32", "BOOL", ..., as safetensors calls them; "?" for MM_ELEM_OTHER. */
const char *mm_elem_name(mm_elem_type type);

/**
 * Little-endian numbers to fp32: exact but for F64, I32, U32, I64 and U64,
 * which are rounded to the nearest; F64 becomes infinite beyond fp32's range.
 * BOOL gives 0 or 1.
 *
 * Memory   in: n_elems of the type, aligned to it; out: [n_elems]; no overlap.
 * Ranks    Local.
 * Timing   Blocking.
 * Errors   None; type is not MM_ELEM_OTHER.
 */
void mm_elem_to_f32(mm_elem_type type, const void *in, float *out,
                    int64_t n_elems);

/**
 * fp32 to F32, F16 or BF16, rounded to the nearest, ties to even.
 *
 * Memory   in: [n_elems]; out: n_elems of the type; no overlap.
 * Ranks    Local.
 * Timing   Blocking.
 * Errors   None; gives the index of the first number that became infinite or
 *          was not finite, or -1.
 */
int64_t mm_elem_from_f32(mm_elem_type type, const float *in, void *out,
                         int64_t n_elems);

/** Index of the first NaN or infinity, or -1. */
int64_t mm_first_nonfinite(const float *values, int64_t n_elems);

#endif
