#ifndef MAGMAX_KERNELS_CUDA_COLUMNS_CUH
#define MAGMAX_KERNELS_CUDA_COLUMNS_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Sums down the columns of a matrix, in a fixed order: a block takes 32 times
 * N columns, N a lane, and a range of rows, each of its warps every eighth row
 * of that.
 */

enum { MM_COLUMN_THREADS = MM_ROWS_A_BLOCK * MM_WARP };

/** Row `part` of out [n_parts, width] (+)= sum of that part's rows of x; parts
 * are blockIdx.x / column blocks. */
template <typename T, int N = 1>
__global__ void __launch_bounds__(MM_COLUMN_THREADS)
    mm_column_sums_kernel(float *out, const T *x, int64_t x_stride,
                          bool accumulate, int64_t n_rows, int64_t width,
                          int64_t rows_a_part)
{
    MM_SHARED(float, sums, MM_COLUMN_THREADS *N);
    const int64_t column_blocks = (width + MM_WARP * N - 1) / (MM_WARP * N);
    const int64_t part = blockIdx.x / column_blocks;
    const int64_t j = (blockIdx.x % column_blocks * MM_WARP + mm_lane()) * N;
    const int first = (int)(threadIdx.x / MM_WARP);
    const int64_t end =
        n_rows < (part + 1) * rows_a_part ? n_rows : (part + 1) * rows_a_part;
    mm_vec<float, N> sum = {};
    if (j < width) {
#pragma unroll 4
        for (int64_t i = part * rows_a_part + first; i < end;
             i += MM_ROWS_A_BLOCK) {
            const mm_vec<float, N> y = mm_load_floats<N>(x + i * x_stride + j);
#pragma unroll
            for (int k = 0; k < N; k++)
                sum.v[k] += y.v[k];
        }
    }
#pragma unroll
    for (int k = 0; k < N; k++)
        sums[k * MM_COLUMN_THREADS + (int)threadIdx.x] = sum.v[k];
    __syncthreads();
    if (first != 0 || j >= width)
        return;
#pragma unroll
    for (int k = 0; k < N; k++) {
        float all = sum.v[k];
        for (int warp = 1; warp < MM_ROWS_A_BLOCK; warp++)
            all += sums[k * MM_COLUMN_THREADS + warp * MM_WARP + mm_lane()];
        float *to = out + part * width + j + k;
        *to = accumulate ? *to + all : all;
    }
}

#endif
