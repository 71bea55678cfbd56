/*
 * The gradient of attention over more tokens than attention_grad.cu can keep:
 * twice over, by rows for queries and by columns for keys.
 */

#include "kernels/cuda/attention_tile.cuh"

namespace
{
enum { THREADS = 128 };

/** tile = tokens [first, first + 64) of x, zero from n_tokens on. */
template <typename T>
__device__ void load_tile(T *tile, const T *x, int64_t ld, int first,
                          int n_tokens)
{
    constexpr int N = mm_wide<T>;
#pragma unroll
    for (int i = 0; i < MM_TILE * MM_HEAD / N / THREADS; i++) {
        const int at = (i * THREADS + (int)threadIdx.x) * N;
        const int row = at / MM_HEAD, col = at % MM_HEAD;
        mm_vec<T, N> part = {};
        if (first + row < n_tokens)
            part = mm_load<N>(x + (first + row) * ld + col);
#pragma unroll
        for (int k = 0; k < N; k++)
            part.v[k] = mm_tile_element(part.v[k]);
        mm_store<N>(tile + row * mm_tile<T>::LD + col, part);
    }
}

/** Also delta[row] = sum of x * y over the row, and lse2[row] = lse * log2(e).
 */
template <typename T>
__device__ void load_dout(T *tile, float *delta, float *lse2,
                          const mm_head_view<T> &h, int first, int n_tokens)
{
    constexpr int N = mm_wide<T>, LANES = MM_HEAD / N;
#pragma unroll
    for (int i = 0; i < MM_TILE * MM_HEAD / N / THREADS; i++) {
        const int at = (i * THREADS + (int)threadIdx.x) * N;
        const int row = at / MM_HEAD, col = at % MM_HEAD;
        mm_vec<T, N> part = {}, out = {};
        if (first + row < n_tokens) {
            part = mm_load<N>(h.dout + (first + row) * h.out_ld + col);
            out = mm_load<N>(h.out + (first + row) * h.out_ld + col);
        }
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < N; k++) {
            sum += mm_float_of(part.v[k]) * mm_float_of(out.v[k]);
            part.v[k] = mm_tile_element(part.v[k]);
        }
        mm_store<N>(tile + row * mm_tile<T>::LD + col, part);
#pragma unroll
        for (int other = LANES / 2; other > 0; other /= 2)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, other);
        if (mm_lane() % LANES == 0) {
            delta[row] = sum;
            lse2[row] =
                first + row < n_tokens ? h.lse[first + row] * MM_LOG2_E : 0.0f;
        }
    }
}

/** One tile of the other side: 16 of its tokens at a time. */
template <bool KEYS, typename T>
__device__ __forceinline__ void
add_tile(float first_sum[1][MM_HEAD / 8][4],
         float second_sum[1][MM_HEAD / 8][4], const uint32_t first_rows[][4],
         const uint32_t second_rows[][4], const T *first_tile,
         const T *second_tile, const float *delta, const float *lse2,
         const mm_attention_arguments<T> &a, int row, int j0)
{
    const int t = mm_lane() % 4;
    const float scale2 = MM_LOG2_E / sqrtf((float)MM_HEAD);
#pragma unroll 1
    for (int c = 0; c < MM_TILE; c += MM_CHUNK) {
        const T *first = first_tile + c * mm_tile<T>::LD;
        const T *second = second_tile + c * mm_tile<T>::LD;
        float p[1][2][4] = {}, ds[1][2][4] = {};
        mm_times_transpose<T>(p[0], first_rows, first);
        mm_times_transpose<T>(ds[0], second_rows, second);
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
                p[0][n][k] = mm_sees(a.causal, a.n_tokens, query, key)
                                 ? mm_exp2(p[0][n][k] * scale2 - lse2[of_query])
                                 : 0.0f;
                ds[0][n][k] = p[0][n][k] * (ds[0][n][k] - delta[of_query]);
            }
        mm_add_times<1>(first_sum, ds, first);
        if (KEYS)
            mm_add_times<1>(second_sum, p, second);
    }
}
} // namespace

/* With p = exp(s - lse), dp = dout v', delta = row sums of dout out, and
 * ds = p (dp - delta): dq = ds k, dk = ds' q, both times the scale, dv = p'
 * dout. A block has 64 tokens of one head: queries, with q and dout, for which
 * it walks over k and v; or when KEYS the reverse, and s, p, ds transposed. */
template <bool KEYS, typename T>
__global__ void __launch_bounds__(THREADS)
    mm_attention_long_grad_kernel(mm_attention_arguments<T> a, int n_tiles)
{
    MM_SHARED(T, first_tile, mm_tile<T>::ELEMS);
    MM_SHARED(T, second_tile, mm_tile<T>::ELEMS);
    MM_SHARED(float, delta, MM_TILE);
    MM_SHARED(float, lse2, MM_TILE);
    const int first = (int)(blockIdx.x % n_tiles) * MM_TILE;
    const int task = (int)(blockIdx.x / n_tiles);
    const mm_head_view<T> h =
        mm_view_head(a, task / a.n_heads, task % a.n_heads);
    const int in_tile = (int)(threadIdx.x / MM_WARP) * 16;
    const int row = first + in_tile + mm_lane() / 4;
    uint32_t first_rows[mm_tile<T>::STEPS][4];
    uint32_t second_rows[mm_tile<T>::STEPS][4];
    load_tile(first_tile, KEYS ? h.k : h.q, h.qkv_ld, first, a.n_tokens);
    if (KEYS)
        load_tile(second_tile, h.v, h.qkv_ld, first, a.n_tokens);
    else
        load_dout(second_tile, delta, lse2, h, first, a.n_tokens);
    __syncthreads();
    mm_load_rows<T>(first_rows, first_tile + in_tile * mm_tile<T>::LD);
    mm_load_rows<T>(second_rows, second_tile + in_tile * mm_tile<T>::LD);
    float first_sum[1][MM_HEAD / 8][4] = {};
    float second_sum[1][MM_HEAD / 8][4] = {};
    const int begin = KEYS && a.causal ? first : 0;
    const int end =
        !KEYS && a.causal ? min(a.n_tokens, first + MM_TILE) : a.n_tokens;
    for (int j0 = begin; j0 < end; j0 += MM_TILE) {
        __syncthreads();
        load_tile(first_tile, KEYS ? h.q : h.k, h.qkv_ld, j0, a.n_tokens);
        if (KEYS)
            load_dout(second_tile, delta, lse2, h, j0, a.n_tokens);
        else
            load_tile(second_tile, h.v, h.qkv_ld, j0, a.n_tokens);
        __syncthreads();
        add_tile<KEYS>(first_sum, second_sum, first_rows, second_rows,
                       first_tile, second_tile, delta, lse2, a, row, j0);
    }
    const float scale = 1.0f / sqrtf((float)MM_HEAD);
    const float scales[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
    __syncthreads();
    mm_store_rows<MM_HEAD / 8>(KEYS ? h.dk : h.dq, h.qkv_ld, first + in_tile,
                               a.n_tokens, first_sum[0], scales,
                               first_tile + in_tile * mm_tile<T>::LD);
    if (KEYS)
        mm_store_rows<MM_HEAD / 8>(h.dv, h.qkv_ld, first + in_tile, a.n_tokens,
                                   second_sum[0], ones,
                                   second_tile + in_tile * mm_tile<T>::LD);
}

template <typename T>
mm_status mm_attention_long_grad(mm_stream *stream,
                                 const mm_attention_arguments<T> &a)
{
    const int n_tiles = (int)mm_ceil_div(a.n_tokens, MM_TILE);
    const int64_t n_blocks = (int64_t)a.n_images * a.n_heads * n_tiles;
    MM_CUDA_REQUIRE("attention_grad", n_blocks <= INT32_MAX);
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    MM_LAUNCH((mm_attention_long_grad_kernel<false, T>), (unsigned)n_blocks,
              THREADS, 0, on, a, n_tiles);
    MM_LAUNCH((mm_attention_long_grad_kernel<true, T>), (unsigned)n_blocks,
              THREADS, 0, on, a, n_tiles);
    return MM_OK;
}

template mm_status
mm_attention_long_grad(mm_stream *, const mm_attention_arguments<float> &);
template mm_status
mm_attention_long_grad(mm_stream *, const mm_attention_arguments<mm_bf16> &);
