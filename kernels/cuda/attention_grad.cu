#include "kernels/cuda/attention_tile.cuh"

namespace
{
/** One tile of the other side: 16 of its tokens at a time. */
template <bool KEYS, typename T>
__device__ __forceinline__ void
add_tile(float first_sum[][4], float second_sum[][4],
         const uint32_t first_rows[][4], const uint32_t second_rows[][4],
         const T *first_tile, const T *second_tile, const float *delta,
         const float *lse2, const mm_attention_arguments<T> &a, int row, int j0)
{
    const int t = mm_lane() % 4;
    const float scale2 = MM_LOG2_E / sqrtf((float)MM_HEAD);
#pragma unroll 1
    for (int c = 0; c < MM_TILE; c += MM_TILE_CHUNK) {
        const T *first = first_tile + c * mm_tile<T>::LD;
        const T *second = second_tile + c * mm_tile<T>::LD;
        float p[2][4] = {}, ds[2][4] = {};
        mm_times_transpose<T>(p, first_rows, first);
        mm_times_transpose<T>(ds, second_rows, second);
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int mine = row + k / 2 * 8;
                const int in_tile = c + 8 * n + 2 * t + k % 2;
                const int other = j0 + in_tile;
                const int query = KEYS ? other : mine;
                const int key = KEYS ? mine : other;
                const int of_query = KEYS ? in_tile : mine % MM_TILE;
                p[n][k] = mm_sees(a.causal, a.n_tokens, query, key)
                              ? exp2f(p[n][k] * scale2 - lse2[of_query])
                              : 0.0f;
                ds[n][k] = p[n][k] * (ds[n][k] - delta[of_query]);
            }
        mm_add_times<T>(first_sum, ds, first);
        if (KEYS)
            mm_add_times<T>(second_sum, p, second);
    }
}
} // namespace

/* With p = exp(s - lse), dp = dout v', delta = row sums of dout out, and
 * ds = p (dp - delta): dq = ds k, dk = ds' q, both times the scale, dv = p'
 * dout. A block has 64 tokens of one head: queries, with q and dout, for which
 * it walks over k and v; or when KEYS the reverse, and s, p, ds transposed. */
template <bool KEYS, typename T>
__global__ void __launch_bounds__(MM_TILE_THREADS)
    mm_attention_grad_kernel(mm_attention_arguments<T> a, int n_tiles)
{
    MM_SHARED(T, first_tile, mm_tile<T>::ELEMS);
    MM_SHARED(T, second_tile, mm_tile<T>::ELEMS);
    MM_SHARED(float, delta, MM_TILE);
    MM_SHARED(float, lse2, MM_TILE);
    const int first = (int)(blockIdx.x % n_tiles) * MM_TILE;
    const int task = (int)(blockIdx.x / n_tiles);
    const mm_head_view<T> h =
        mm_view_head(a, task / a.n_heads, task % a.n_heads);
    const int row = first + (int)(threadIdx.x / MM_WARP) * 16 + mm_lane() / 4;
    uint32_t first_rows[mm_tile<T>::STEPS][4];
    uint32_t second_rows[mm_tile<T>::STEPS][4];
    mm_load_tile(first_tile, KEYS ? h.k : h.q, h.qkv_ld, first, a.n_tokens);
    if (KEYS)
        mm_load_tile(second_tile, h.v, h.qkv_ld, first, a.n_tokens);
    else
        mm_load_dout(second_tile, delta, lse2, h, first, a.n_tokens);
    __syncthreads();
    mm_load_rows<T>(first_rows, first_tile);
    mm_load_rows<T>(second_rows, second_tile);
    float first_sum[MM_HEAD / 8][4] = {}, second_sum[MM_HEAD / 8][4] = {};
    const int begin = KEYS && a.causal ? first : 0;
    const int end =
        !KEYS && a.causal ? min(a.n_tokens, first + MM_TILE) : a.n_tokens;
    for (int j0 = begin; j0 < end; j0 += MM_TILE) {
        __syncthreads();
        mm_load_tile(first_tile, KEYS ? h.q : h.k, h.qkv_ld, j0, a.n_tokens);
        if (KEYS)
            mm_load_dout(second_tile, delta, lse2, h, j0, a.n_tokens);
        else
            mm_load_tile(second_tile, h.v, h.qkv_ld, j0, a.n_tokens);
        __syncthreads();
        add_tile<KEYS>(first_sum, second_sum, first_rows, second_rows,
                       first_tile, second_tile, delta, lse2, a, row, j0);
    }
    const float scale = 1.0f / sqrtf((float)MM_HEAD);
    const float scales[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
    mm_store_rows(KEYS ? h.dk : h.dq, h.qkv_ld, first, a.n_tokens, first_sum,
                  scales);
    if (KEYS)
        mm_store_rows(h.dv, h.qkv_ld, first, a.n_tokens, second_sum, ones);
}

template <typename T>
static mm_status attention_grad(mm_stream *stream, T *dqkv, const T *dout,
                                const T *out, const float *lse, const T *qkv,
                                bool causal, int64_t n_images, int64_t n_tokens,
                                int64_t width, int64_t n_heads)
{
    MM_TRY(mm_attention_check<T>("attention_grad", stream, n_images, n_tokens,
                                 width, n_heads));
    if (n_images == 0 || n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("attention_grad", dqkv && dout && out && lse && qkv);
    /* out and lse are only read here. */
    const mm_attention_arguments<T> a = {const_cast<T *>(out),
                                         const_cast<float *>(lse),
                                         qkv,
                                         dout,
                                         dqkv,
                                         causal,
                                         (int)n_images,
                                         (int)n_tokens,
                                         (int)n_heads,
                                         (int)(width / n_heads)};
    if (!mm_attention_fits(stream, a))
        return mm_attention_any_grad(stream, a);
    const int n_tiles = (int)mm_ceil_div(n_tokens, MM_TILE);
    const int64_t n_blocks = n_images * n_heads * n_tiles;
    MM_CUDA_REQUIRE("attention_grad", n_blocks <= INT32_MAX);
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    MM_LAUNCH((mm_attention_grad_kernel<false, T>), (unsigned)n_blocks,
              MM_TILE_THREADS, 0, on, a, n_tiles);
    MM_LAUNCH((mm_attention_grad_kernel<true, T>), (unsigned)n_blocks,
              MM_TILE_THREADS, 0, on, a, n_tiles);
    return MM_CUDA(cudaGetLastError(),
                   "attention_grad of %lld images, %lld tokens, %lld heads of "
                   "64",
                   (long long)n_images, (long long)n_tokens,
                   (long long)n_heads);
}

mm_status mm_cuda_attention_grad(mm_stream *stream, mm_act *dqkv,
                                 const mm_act *dout, const mm_act *out,
                                 const float *lse, const mm_act *qkv,
                                 bool causal, int64_t n_images,
                                 int64_t n_tokens, int64_t width,
                                 int64_t n_heads)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return attention_grad(stream, mm_as<T>(dqkv), mm_as<T>(dout),
                              mm_as<T>(out), lse, mm_as<T>(qkv), causal,
                              n_images, n_tokens, width, n_heads);
    });
}
