#ifndef MAGMAX_KERNELS_CUDA_FLAT_CUH
#define MAGMAX_KERNELS_CUDA_FLAT_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Ops on flat buffers: f.run<N>(i) does elements [i, i + N), N being W or, at
 * the end and where pointers are not aligned, 1.
 */

enum { MM_FLAT_THREADS = 256, MM_FLAT_BLOCKS_PER_SM = 16 };

template <int N, typename F>
__global__ void __launch_bounds__(MM_FLAT_THREADS)
    mm_flat_kernel(F f, int64_t n_elems)
{
    const int64_t step = (int64_t)gridDim.x * MM_FLAT_THREADS * N;
    int64_t i = ((int64_t)blockIdx.x * MM_FLAT_THREADS + threadIdx.x) * N;
    for (; i + N <= n_elems; i += step)
        f.template run<N>(i);
    for (; i < n_elems; i++) /* the one thread whose last step is cut */
        f.template run<1>(i);
}

/** Launch f over n_elems; `wide` says that all its pointers fit W elements. */
template <int W = 4, typename F>
mm_status mm_flat(mm_stream *stream, const char *op, bool wide, F f,
                  int64_t n_elems)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    if (n_elems == 0)
        return MM_OK;
    const int64_t most = (int64_t)cuda->n_sms * MM_FLAT_BLOCKS_PER_SM;
    const int64_t wanted =
        mm_ceil_div(n_elems, MM_FLAT_THREADS * (wide ? W : 1));
    const unsigned grid = (unsigned)mm_min_i64(wanted, most);
    if (wide)
        MM_LAUNCH((mm_flat_kernel<W, F>), grid, MM_FLAT_THREADS, 0,
                  cuda->stream, f, n_elems);
    else
        MM_LAUNCH((mm_flat_kernel<1, F>), grid, MM_FLAT_THREADS, 0,
                  cuda->stream, f, n_elems);
    return MM_CUDA(cudaGetLastError(), "%s of %lld elements", op,
                   (long long)n_elems);
}

#endif
