#ifndef MAGMAX_KERNELS_CUDA_COLUMNS_CUH
#define MAGMAX_KERNELS_CUDA_COLUMNS_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Sums down the columns of a matrix, in a fixed order: a block takes 32 times
 * N columns, N per lane, and a range of rows, each of its warps every eighth
 * row of that; the sums of such parts are added up by a second kernel.
 */

enum {
    MM_COLUMN_THREADS = MM_ROWS_PER_BLOCK * MM_WARP,
    MM_COLUMN_BLOCKS_PER_SM = 4, /* resident */
    /* The same on every GPU, so that the bits are: as many as an H100 has
     * resident. */
    MM_COLUMN_BLOCKS = 132 * MM_COLUMN_BLOCKS_PER_SM,
    MM_COLUMN_LEAST_ROWS = 64 /* of a part */
};

static_assert(MM_COLUMN_BLOCKS * MM_WARP * mm_wide<mm_bf16> * sizeof(float) <=
                  MM_CUDA_PARTIAL_BYTES,
              "sums of all parts");

/** How the rows are divided: by the type, not by what an access takes, so that
 * the order does not depend on the pointers. */
struct mm_column_parts {
    int64_t n, rows; /* rows of one */
};

template <typename T>
inline mm_column_parts mm_divide_rows(int64_t n_rows, int64_t width)
{
    const int64_t column_blocks = mm_ceil_div(width, MM_WARP * mm_wide<T>);
    const int64_t most = mm_min_i64(MM_COLUMN_BLOCKS / column_blocks,
                                    mm_ceil_div(n_rows, MM_COLUMN_LEAST_ROWS));
    const int64_t n = most > 1 ? most : 1;
    return {n, mm_ceil_div(n_rows, n)};
}

/**
 * Row `part` of out [n_parts, width] (+)= that part's sum of what f gives for
 * each row; parts are blockIdx.x / column blocks. For N elements from `at` on
 *
 *   f.load<N>(at)          asks for what f needs of them: a thread has AHEAD
 *                          rows under way together
 *   f.finish<N>(at, part)  does what else there is to do with it and returns
 *                          N terms
 */
template <int N, int AHEAD, typename F>
__device__ __forceinline__ void
mm_sum_columns(float *out, const F &f, int64_t stride, bool accumulate,
               int64_t n_rows, int64_t width, int64_t rows_per_part)
{
    enum { COLUMNS = MM_WARP * N };
    MM_SHARED(float, sums, MM_ROWS_PER_BLOCK *COLUMNS); /* [warp][column] */
    const int64_t column_blocks = (width + COLUMNS - 1) / COLUMNS;
    const int64_t part = blockIdx.x / column_blocks;
    const int64_t first_column = blockIdx.x % column_blocks * COLUMNS;
    const int64_t j = first_column + mm_lane() * N;
    const int warp = (int)(threadIdx.x / MM_WARP);
    const int64_t end = n_rows < (part + 1) * rows_per_part
                            ? n_rows
                            : (part + 1) * rows_per_part;
    mm_vec<float, N> sum = {};
    if (j < width) {
        const int64_t apart = MM_ROWS_PER_BLOCK * stride;
        int64_t i = part * rows_per_part + warp;
        for (int64_t at = i * stride + j; i < end;
             i += AHEAD * MM_ROWS_PER_BLOCK, at += AHEAD * apart) {
            typename F::template part<N> ahead[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; a++)
                if (i + a * MM_ROWS_PER_BLOCK < end)
                    ahead[a] = f.template load<N>(at + a * apart);
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
                if (i + a * MM_ROWS_PER_BLOCK >= end)
                    break;
                const mm_vec<float, N> terms =
                    f.template finish<N>(at + a * apart, ahead[a]);
#pragma unroll
                for (int k = 0; k < N; k++)
                    sum.v[k] += terms.v[k];
            }
        }
    }
    mm_store<N>(sums + warp * COLUMNS + mm_lane() * N, sum);
    __syncthreads();
    const int column = (int)threadIdx.x;
    if (column >= COLUMNS || first_column + column >= width)
        return;
    float all = sums[column];
    for (int i = 1; i < MM_ROWS_PER_BLOCK; i++)
        all += sums[i * COLUMNS + column];
    float *to = out + part * width + first_column + column;
    *to = accumulate ? *to + all : all;
}

/** What mm_sum_columns makes of the matrix x itself. */
template <typename T> struct mm_elements {
    const T *x;
    template <int N> using part = mm_vec<T, N>;
    template <int N> __device__ __forceinline__ part<N> load(int64_t at) const
    {
        return mm_load<N>(x + at);
    }
    template <int N>
    __device__ __forceinline__ mm_vec<float, N> finish(int64_t,
                                                       const part<N> &of) const
    {
        return mm_floats_of(of);
    }
};

template <typename T, int N = 1>
__global__ void __launch_bounds__(MM_COLUMN_THREADS, MM_COLUMN_BLOCKS_PER_SM)
    mm_column_sums_kernel(float *out, const T *x, int64_t x_stride,
                          bool accumulate, int64_t n_rows, int64_t width,
                          int64_t rows_per_part)
{
    mm_sum_columns<N, 4>(out, mm_elements<T>{x}, x_stride, accumulate, n_rows,
                         width, rows_per_part);
}

/** sums (+)= the sum of n_parts rows of partials, `stride` apart. */
inline void mm_add_partials(cudaStream_t on, float *sums, const float *partials,
                            bool accumulate, int64_t n_parts, int64_t width,
                            int64_t stride)
{
    MM_LAUNCH((mm_column_sums_kernel<float>), mm_blocks(width, MM_WARP),
              MM_COLUMN_THREADS, 0, on, sums, partials, stride, accumulate,
              n_parts, width, n_parts);
}

#endif
