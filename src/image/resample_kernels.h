#ifndef MAGMAX_SRC_IMAGE_RESAMPLE_KERNELS_H
#define MAGMAX_SRC_IMAGE_RESAMPLE_KERNELS_H

/* The inner loops of resample.c. */

#include "src/image/resample.h"
#include "src/image/resample_axis.h"

/* Bytes that are weighed together; what a kernel reads and writes comes in
 * whole groups of so many. */
enum { MM_LANES = 32 };

/**
 * Make n_bytes bytes of output i: the sums, rounded and clamped to bytes, of
 * the axis' weights times the rows at `in`, whose first is that of i's first
 * tap.
 *
 * Memory   Rows may be read, and out written, up to n_bytes rounded up to
 *          MM_LANES; a row may be read behind the last tap's.
 * Repeat   The same bytes from every kernel.
 */
typedef void mm_weigh(const mm_axis *axis, int64_t i, const uint8_t *in,
                      int64_t stride_bytes, int64_t n_bytes, uint8_t *out);

/** Plain loops: the specification. */
mm_weigh mm_weigh_plain;

/** The kernel for AVX2, or NULL where the processor does not have it. */
mm_weigh *mm_weigh_avx2(void);

/** mm_resampler_create takes the fastest kernel; a test may choose. */
mm_status mm_resampler_create_with(mm_weigh *weigh, mm_resampler **resampler);

/** Transpose: byte i of rows[r] goes to block[i][r]. Nothing is read behind
 * n_bytes. */
void mm_rows_to_block(const uint8_t *const rows[MM_LANES], int64_t n_bytes,
                      uint8_t *block);

/** And back; block and rows have room for n_bytes rounded up to 16. */
void mm_block_to_rows(const uint8_t *block, int64_t n_bytes,
                      uint8_t *const rows[MM_LANES]);

#endif
