#include "kernels/cuda/attention_tile.cuh"

namespace
{
/** A row's running maximum and sum; index: rows g and g + 8 of the warp's. */
struct softmax_rows {
    float max[2] = {-INFINITY, -INFINITY};
    float sum[2] = {0.0f, 0.0f};
};

__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

/** Scores become exponentials, relative to the largest so far; what was summed
 * before is rescaled. Scores are in units of log2. */
__device__ __forceinline__ void soften(softmax_rows &rows, float s[][4],
                                       float out[][4])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float max = rows.max[half], sum = 0.0f;
#pragma unroll
        for (int j = 0; j < MM_TILE / 8; j++)
            max = fmaxf(max, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
        max = quad_max(max);
        const float shrink = exp2f(rows.max[half] - max);
        rows.max[half] = max;
#pragma unroll
        for (int j = 0; j < MM_TILE / 8; j++)
#pragma unroll
            for (int k = 2 * half; k < 2 * half + 2; k++) {
                s[j][k] = exp2f(s[j][k] - max);
                sum += s[j][k];
            }
        rows.sum[half] = rows.sum[half] * shrink + sum;
#pragma unroll
        for (int j = 0; j < MM_HEAD / 8; j++) {
            out[j][2 * half] *= shrink;
            out[j][2 * half + 1] *= shrink;
        }
    }
}
} // namespace

/* A block has 64 queries of one head and walks over its keys. */
template <typename T>
__global__ void __launch_bounds__(MM_TILE_THREADS)
    mm_attention_kernel(mm_attention_arguments<T> a, int n_tiles)
{
    MM_SHARED(T, keys, mm_tile<T>::ELEMS);
    MM_SHARED(T, values, mm_tile<T>::ELEMS);
    const int first = (int)(blockIdx.x % n_tiles) * MM_TILE;
    const int task = (int)(blockIdx.x / n_tiles);
    const mm_head_view<T> h =
        mm_view_head(a, task / a.n_heads, task % a.n_heads);
    const int g = mm_lane() / 4, t = mm_lane() % 4;
    const int row = first + (int)(threadIdx.x / MM_WARP) * 16 + g;
    const float scale2 = MM_LOG2_E / sqrtf((float)MM_HEAD);
    uint32_t queries[mm_tile<T>::STEPS][4];
    mm_load_tile(keys, h.q, h.qkv_ld, first, a.n_tokens);
    __syncthreads();
    mm_load_rows<T>(queries, keys);
    softmax_rows rows;
    float out[MM_HEAD / 8][4] = {};
    const int end = a.causal ? min(a.n_tokens, first + MM_TILE) : a.n_tokens;
    for (int j0 = 0; j0 < end; j0 += MM_TILE) {
        __syncthreads();
        mm_load_tile(keys, h.k, h.qkv_ld, j0, a.n_tokens);
        mm_load_tile(values, h.v, h.qkv_ld, j0, a.n_tokens);
        __syncthreads();
        float s[MM_TILE / 8][4] = {};
#pragma unroll
        for (int c = 0; c < MM_TILE / MM_TILE_CHUNK; c++)
            mm_times_transpose<T>(s + 2 * c, queries,
                                  keys + c * MM_TILE_CHUNK * mm_tile<T>::LD);
#pragma unroll
        for (int j = 0; j < MM_TILE / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                /* Rows past the end see what the last one sees. */
                const int i = min(row + k / 2 * 8, a.n_tokens - 1);
                const int key = j0 + 8 * j + 2 * t + k % 2;
                s[j][k] = mm_sees(a.causal, a.n_tokens, i, key)
                              ? s[j][k] * scale2
                              : -INFINITY;
            }
        soften(rows, s, out);
#pragma unroll
        for (int c = 0; c < MM_TILE / MM_TILE_CHUNK; c++)
            mm_add_times<T>(out, s + 2 * c,
                            values + c * MM_TILE_CHUNK * mm_tile<T>::LD);
    }
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = quad_sum(rows.sum[half]);
        const int token = row + 8 * half;
        factor[half] = 1.0f / sum;
        if (h.lse && t == 0 && token < a.n_tokens)
            h.lse[token] = rows.max[half] / MM_LOG2_E + logf(sum);
    }
    mm_store_rows(h.to_out, h.out_ld, first, a.n_tokens, out, factor);
}

template <typename T>
static mm_status attention(mm_stream *stream, T *out, float *lse, const T *qkv,
                           bool causal, int64_t n_images, int64_t n_tokens,
                           int64_t width, int64_t n_heads)
{
    MM_TRY(mm_attention_check<T>("attention", stream, n_images, n_tokens, width,
                                 n_heads));
    if (n_images == 0 || n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("attention", out && qkv);
    const mm_attention_arguments<T> a = {out,           lse,
                                         qkv,           nullptr,
                                         nullptr,       causal,
                                         (int)n_images, (int)n_tokens,
                                         (int)n_heads,  (int)(width / n_heads)};
    if (!mm_attention_fits(stream, a))
        return mm_attention_any(stream, a);
    const int n_tiles = (int)mm_ceil_div(n_tokens, MM_TILE);
    const int64_t n_blocks = n_images * n_heads * n_tiles;
    MM_CUDA_REQUIRE("attention", n_blocks <= INT32_MAX);
    MM_LAUNCH((mm_attention_kernel<T>), (unsigned)n_blocks, MM_TILE_THREADS, 0,
              mm_cuda_stream_of(stream)->stream, a, n_tiles);
    return MM_CUDA(cudaGetLastError(),
                   "attention of %lld images, %lld tokens, %lld heads of 64",
                   (long long)n_images, (long long)n_tokens,
                   (long long)n_heads);
}

mm_status mm_cuda_attention(mm_stream *stream, mm_act *out, float *lse,
                            const mm_act *qkv, bool causal, int64_t n_images,
                            int64_t n_tokens, int64_t width, int64_t n_heads)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return attention(stream, mm_as<T>(out), lse, mm_as<T>(qkv), causal,
                         n_images, n_tokens, width, n_heads);
    });
}
