/* Token embeddings looked up in the table, plus positions, one warp per token.
 */

#include "kernels/cuda/launch.cuh"

template <int N, typename T>
__global__ void mm_embed_text_kernel(T *x, const int32_t *tokens,
                                     const float *table, const float *pos,
                                     int64_t n_rows, int64_t n_tokens,
                                     int64_t width)
{
    const int64_t row = mm_warp_row();
    if (row >= n_rows)
        return;
    const float *token = table + tokens[row] * width;
    const float *at = pos + row % n_tokens * width;
    for (int64_t c = mm_lane() * N; c < width; c += MM_WARP * N) {
        mm_vec<float, N> sum = mm_load<N>(token + c);
        const mm_vec<float, N> p = mm_load<N>(at + c);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum.v[k] += p.v[k];
        mm_store_floats<N>(x + row * width + c, sum);
    }
}

template <typename T>
static mm_status embed_text(mm_stream *stream, T *x, const int32_t *tokens,
                            const float *table, const float *pos,
                            int64_t n_texts, int64_t n_tokens, int64_t width)
{
    MM_CUDA_REQUIRE("embed_text", stream && n_texts >= 0);
    MM_CUDA_REQUIRE("embed_text", n_tokens >= 0 && width >= 0);
    if (n_texts == 0 || n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("embed_text", x && tokens && table && pos);
    constexpr int N = mm_wide<T>;
    const int64_t n_rows = n_texts * n_tokens;
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    const unsigned grid = mm_blocks(n_rows, MM_ROWS_PER_BLOCK);
    if (mm_fits<N>(x, table, pos) && width % N == 0)
        MM_LAUNCH((mm_embed_text_kernel<N, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, x, tokens, table, pos,
                  n_rows, n_tokens, width);
    else
        MM_LAUNCH((mm_embed_text_kernel<1, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, x, tokens, table, pos,
                  n_rows, n_tokens, width);
    return MM_CUDA(cudaGetLastError(),
                   "embed_text of %lld texts, %lld tokens of %lld",
                   (long long)n_texts, (long long)n_tokens, (long long)width);
}

mm_status mm_cuda_embed_text(mm_stream *stream, mm_act *x,
                             const int32_t *tokens, const float *table,
                             const float *pos, int64_t n_texts,
                             int64_t n_tokens, int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return embed_text(stream, mm_as<T>(x), tokens, table, pos, n_texts,
                          n_tokens, width);
    });
}
