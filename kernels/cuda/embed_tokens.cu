/* The class token in front of an image's patches, plus positions, one warp per
 * token. */

#include "kernels/cuda/launch.cuh"

template <int N, typename T>
__global__ void mm_embed_tokens_kernel(T *x, const T *patches,
                                       const float *class_embedding,
                                       const float *pos, int64_t n_rows,
                                       int64_t n_tokens, int64_t width)
{
    const int64_t row = mm_warp_row();
    if (row >= n_rows)
        return;
    const int64_t b = row / n_tokens, t = row % n_tokens;
    const T *patch = patches + (row - b - 1) * width;
    for (int64_t c = mm_lane() * N; c < width; c += MM_WARP * N) {
        mm_vec<float, N> sum = t == 0 ? mm_load_floats<N>(class_embedding + c)
                                      : mm_load_floats<N>(patch + c);
        const mm_vec<float, N> at = mm_load<N>(pos + t * width + c);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum.v[k] += at.v[k];
        mm_store_floats<N>(x + row * width + c, sum);
    }
}

template <typename T>
static mm_status embed_tokens(mm_stream *stream, T *x, const T *patches,
                              const float *class_embedding, const float *pos,
                              int64_t n_images, int64_t n_tokens, int64_t width)
{
    MM_CUDA_REQUIRE("embed_tokens", stream && n_images >= 0);
    MM_CUDA_REQUIRE("embed_tokens", n_tokens >= 0 && width >= 0);
    if (n_images == 0 || n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("embed_tokens", x && class_embedding && pos);
    MM_CUDA_REQUIRE("embed_tokens", patches || n_tokens == 1);
    const int64_t n_rows = n_images * n_tokens;
    const unsigned grid = mm_blocks(n_rows, MM_ROWS_PER_BLOCK);
    constexpr int N = mm_wide<T>;
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    if (mm_fits<N>(x, patches, class_embedding, pos) && width % N == 0)
        MM_LAUNCH((mm_embed_tokens_kernel<N, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, x, patches,
                  class_embedding, pos, n_rows, n_tokens, width);
    else
        MM_LAUNCH((mm_embed_tokens_kernel<1, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, x, patches,
                  class_embedding, pos, n_rows, n_tokens, width);
    return MM_CUDA(cudaGetLastError(),
                   "embed_tokens of %lld images, %lld tokens of %lld",
                   (long long)n_images, (long long)n_tokens, (long long)width);
}

mm_status mm_cuda_embed_tokens(mm_stream *stream, mm_act *x,
                               const mm_act *patches,
                               const float *class_embedding, const float *pos,
                               int64_t n_images, int64_t n_tokens,
                               int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return embed_tokens(stream, mm_as<T>(x), mm_as<T>(patches),
                            class_embedding, pos, n_images, n_tokens, width);
    });
}
