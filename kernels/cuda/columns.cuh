#ifndef MAGMAX_KERNELS_CUDA_COLUMNS_CUH
#define MAGMAX_KERNELS_CUDA_COLUMNS_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Sums down the columns of a matrix, in a fixed order: a block takes 32 columns
 * and a range of rows, each of its warps every eighth row of that.
 */

enum { MM_COLUMN_THREADS = MM_ROWS_A_BLOCK * MM_WARP };

/** Row `part` of out [n_parts, width] (+)= sum of that part's rows of x; parts
 * are blockIdx.x / column blocks. */
template <typename T>
__global__ void __launch_bounds__(MM_COLUMN_THREADS)
    mm_column_sums_kernel(float *out, const T *x, int64_t x_stride,
                          bool accumulate, int64_t n_rows, int64_t width,
                          int64_t rows_a_part)
{
    MM_SHARED(float, sums, MM_COLUMN_THREADS);
    const int64_t column_blocks = (width + MM_WARP - 1) / MM_WARP;
    const int64_t part = blockIdx.x / column_blocks;
    const int64_t j = blockIdx.x % column_blocks * MM_WARP + mm_lane();
    const int first = (int)(threadIdx.x / MM_WARP);
    const int64_t end =
        n_rows < (part + 1) * rows_a_part ? n_rows : (part + 1) * rows_a_part;
    float sum = 0.0f;
    if (j < width) {
#pragma unroll 4
        for (int64_t i = part * rows_a_part + first; i < end;
             i += MM_ROWS_A_BLOCK)
            sum += mm_float_of(x[i * x_stride + j]);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (first != 0 || j >= width)
        return;
    for (int k = 1; k < MM_ROWS_A_BLOCK; k++)
        sum += sums[k * MM_WARP + mm_lane()];
    float *to = out + part * width + j;
    *to = accumulate ? *to + sum : sum;
}

#endif
