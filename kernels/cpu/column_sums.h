#ifndef MAGMAX_KERNELS_CPU_COLUMN_SUMS_H
#define MAGMAX_KERNELS_CPU_COLUMN_SUMS_H

#include "kernels/cpu/cpu.h"

/**
 * sums (+)= sum of x over its rows, in an order that does not depend on the
 * number of threads.
 *
 * Shapes   sums [width]; x: n_rows rows of `width`, x_stride apart. Without
 *          rows the sums are 0.
 */
void MM_CPU(column_sums)(mm_stream *stream, float *sums, const float *x,
                         int64_t x_stride, bool accumulate, int64_t n_rows,
                         int64_t width);

#endif
