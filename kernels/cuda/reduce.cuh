#ifndef MAGMAX_KERNELS_CUDA_REDUCE_CUH
#define MAGMAX_KERNELS_CUDA_REDUCE_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Sums in a fixed order: each block leaves one in the stream's `partials`, one
 * block adds those up.
 */

/* Blocks: the same on every GPU, so that the bits are; four per multiprocessor
 * of an H100, all resident at once. AHEAD: steps whose loads a thread has under
 * way together. */
enum { MM_REDUCE_THREADS = 256, MM_REDUCE_BLOCKS = 528, MM_REDUCE_AHEAD = 4 };

static_assert(MM_REDUCE_BLOCKS * sizeof(double) <= MM_CUDA_PARTIAL_BYTES,
              "one double per block");

/** The sum of every thread's x, valid in thread 0. */
template <typename A> __device__ A mm_block_sum(A x)
{
    MM_SHARED(A, of_warp, MM_REDUCE_THREADS / MM_WARP);
    x = mm_warp_sum(x);
    if (mm_lane() == 0)
        of_warp[threadIdx.x / MM_WARP] = x;
    __syncthreads();
    A sum = A(0);
    if (threadIdx.x == 0)
        for (int i = 0; i < MM_REDUCE_THREADS / MM_WARP; i++)
            sum += of_warp[i];
    __syncthreads();
    return sum;
}

template <typename A>
__global__ void __launch_bounds__(MM_REDUCE_THREADS)
    mm_sum_partials_kernel(A *sum, const A *partials, int n_partials)
{
    A mine = A(0);
    for (int i = (int)threadIdx.x; i < n_partials; i += MM_REDUCE_THREADS)
        mine += partials[i];
    const A all = mm_block_sum(mine);
    if (threadIdx.x == 0)
        *sum = all;
}

/** Elements are dealt out in fours however many one access takes, so that the
 * order does not depend on the pointers. */
template <int N, typename A, typename F>
__global__ void __launch_bounds__(MM_REDUCE_THREADS)
    mm_map_sum_kernel(A *partials, F f, int64_t n_elems)
{
    const int64_t step = (int64_t)gridDim.x * MM_REDUCE_THREADS * 4;
    int64_t i = ((int64_t)blockIdx.x * MM_REDUCE_THREADS + threadIdx.x) * 4;
    A mine = A(0);
    for (; i + (MM_REDUCE_AHEAD - 1) * step + 4 <= n_elems;
         i += MM_REDUCE_AHEAD * step)
#pragma unroll
        for (int ahead = 0; ahead < MM_REDUCE_AHEAD; ahead++)
#pragma unroll
            for (int k = 0; k < 4; k += N)
                f.template run<N>(i + ahead * step + k, mine);
    for (; i + 4 <= n_elems; i += step)
#pragma unroll
        for (int k = 0; k < 4; k += N)
            f.template run<N>(i + k, mine);
    for (; i < n_elems; i++)
        f.template run<1>(i, mine);
    const A all = mm_block_sum(mine);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = all;
}

/** *sum = what f.run<N>(i, sum) adds for elements [i, i + N), N being 4 where
 * `wide` says that all of f's pointers fit four elements, else 1. */
template <typename A, typename F>
mm_status mm_map_sum(mm_stream *stream, const char *op, A *sum, bool wide, F f,
                     int64_t n_elems)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    A *partials = static_cast<A *>(cuda->partials);
    const int n_blocks = (int)mm_min_i64(
        MM_REDUCE_BLOCKS, mm_ceil_div(n_elems, MM_REDUCE_THREADS * 4));
    if (n_blocks > 0 && wide)
        MM_LAUNCH((mm_map_sum_kernel<4, A, F>), (unsigned)n_blocks,
                  MM_REDUCE_THREADS, 0, cuda->stream, partials, f, n_elems);
    else if (n_blocks > 0)
        MM_LAUNCH((mm_map_sum_kernel<1, A, F>), (unsigned)n_blocks,
                  MM_REDUCE_THREADS, 0, cuda->stream, partials, f, n_elems);
    MM_TRY(MM_CUDA(cudaGetLastError(), "%s of %lld elements", op,
                   (long long)n_elems));
    MM_LAUNCH((mm_sum_partials_kernel<A>), 1, MM_REDUCE_THREADS, 0,
              cuda->stream, sum, partials, n_blocks);
    return MM_CUDA(cudaGetLastError(), "%s of %lld elements", op,
                   (long long)n_elems);
}

/** A warp takes a row: f.row(b) is called by all its lanes. */
template <typename F>
__global__ void __launch_bounds__(MM_REDUCE_THREADS)
    mm_row_sum_kernel(double *partials, F f, int64_t n_rows)
{
    const int64_t step = (int64_t)gridDim.x * (MM_REDUCE_THREADS / MM_WARP);
    int64_t b = (int64_t)blockIdx.x * (MM_REDUCE_THREADS / MM_WARP) +
                threadIdx.x / MM_WARP;
    double sum = 0.0;
    for (; b < n_rows; b += step)
        sum += f.row(b);
    const double all = mm_block_sum(mm_lane() == 0 ? sum : 0.0);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = all;
}

/** *sum = sum over rows b of f.row(b), of which lane 0's counts. */
template <typename F>
mm_status mm_row_sum(mm_stream *stream, const char *op, double *sum, F f,
                     int64_t n_rows)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    double *partials = static_cast<double *>(cuda->partials);
    const int n_blocks = (int)mm_min_i64(
        MM_REDUCE_BLOCKS, mm_ceil_div(n_rows, MM_REDUCE_THREADS / MM_WARP));
    if (n_blocks > 0)
        MM_LAUNCH((mm_row_sum_kernel<F>), (unsigned)n_blocks, MM_REDUCE_THREADS,
                  0, cuda->stream, partials, f, n_rows);
    MM_TRY(
        MM_CUDA(cudaGetLastError(), "%s of %lld rows", op, (long long)n_rows));
    MM_LAUNCH((mm_sum_partials_kernel<double>), 1, MM_REDUCE_THREADS, 0,
              cuda->stream, sum, partials, n_blocks);
    return MM_CUDA(cudaGetLastError(), "%s of %lld rows", op,
                   (long long)n_rows);
}

#endif
