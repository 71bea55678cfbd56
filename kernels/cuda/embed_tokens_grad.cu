/* The gradient of embed_tokens: sums over the images for positions and class
 * token, and the patches' rows. */

#include "kernels/cuda/launch.cuh"

enum { EMBED_THREADS = 128 };

/* A thread adds up N columns of one token over the images, in their order, and
 * passes the rows on. */
template <int N, typename T>
__global__ void __launch_bounds__(EMBED_THREADS)
    mm_embed_tokens_grad_kernel(T *dpatches, float *dclass, float *dpos,
                                const T *dx, bool accumulate, int64_t n_images,
                                int64_t n_tokens, int64_t width)
{
    const int64_t i = ((int64_t)blockIdx.x * EMBED_THREADS + threadIdx.x) * N;
    if (i >= n_tokens * width)
        return;
    const bool is_class = i < width;
    mm_vec<float, N> sum = {}, of_class = {};
    if (accumulate)
        sum = mm_load<N>(dpos + i);
    if (accumulate && is_class)
        of_class = mm_load<N>(dclass + i);
#pragma unroll 8
    for (int64_t b = 0; b < n_images; b++) {
        const mm_vec<T, N> row = mm_load<N>(dx + b * n_tokens * width + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            sum.v[k] += mm_float_of(row.v[k]);
            of_class.v[k] += mm_float_of(row.v[k]);
        }
        if (!is_class)
            mm_store<N>(dpatches + b * (n_tokens - 1) * width + i - width, row);
    }
    mm_store<N>(dpos + i, sum);
    if (is_class)
        mm_store<N>(dclass + i, of_class);
}

template <typename T>
static mm_status embed_tokens_grad(mm_stream *stream, T *dpatches,
                                   float *dclass, float *dpos, const T *dx,
                                   bool accumulate, int64_t n_images,
                                   int64_t n_tokens, int64_t width)
{
    MM_CUDA_REQUIRE("embed_tokens_grad", stream && n_images >= 0);
    MM_CUDA_REQUIRE("embed_tokens_grad", n_tokens >= 0 && width >= 0);
    if (n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("embed_tokens_grad", dclass && dpos);
    MM_CUDA_REQUIRE("embed_tokens_grad",
                    n_images == 0 || (dx && (dpatches || n_tokens == 1)));
    constexpr int N = mm_wide<T>;
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    const int64_t n = n_tokens * width;
    if (mm_fits<N>(dpatches, dclass, dpos, dx) && width % N == 0)
        MM_LAUNCH((mm_embed_tokens_grad_kernel<N, T>),
                  mm_blocks(n, EMBED_THREADS * N), EMBED_THREADS, 0, on,
                  dpatches, dclass, dpos, dx, accumulate, n_images, n_tokens,
                  width);
    else
        MM_LAUNCH((mm_embed_tokens_grad_kernel<1, T>),
                  mm_blocks(n, EMBED_THREADS), EMBED_THREADS, 0, on, dpatches,
                  dclass, dpos, dx, accumulate, n_images, n_tokens, width);
    return MM_CUDA(cudaGetLastError(),
                   "embed_tokens_grad of %lld images, %lld tokens of %lld",
                   (long long)n_images, (long long)n_tokens, (long long)width);
}

mm_status mm_cuda_embed_tokens_grad(mm_stream *stream, mm_act *dpatches,
                                    float *dclass, float *dpos,
                                    const mm_act *dx, bool accumulate,
                                    int64_t n_images, int64_t n_tokens,
                                    int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return embed_tokens_grad(stream, mm_as<T>(dpatches), dclass, dpos,
                                 mm_as<T>(dx), accumulate, n_images, n_tokens,
                                 width);
    });
}
