#include "kernels/cuda/attention_tile.cuh"

namespace
{
enum { MOST_WARPS = 8, TILE_CHUNKS = MM_TILE / MM_CHUNK };

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
 * before is rescaled. scale2: what makes scores powers of two. */
__device__ __forceinline__ void soften(softmax_rows &rows,
                                       float s[TILE_CHUNKS][1][2][4],
                                       float out[1][MM_HEAD / 8][4],
                                       float scale2)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float max = rows.max[half], sum = 0.0f;
#pragma unroll
        for (int j = 0; j < MM_TILE / 8; j++)
            max = fmaxf(max, fmaxf(s[j / 2][0][j % 2][2 * half],
                                   s[j / 2][0][j % 2][2 * half + 1]));
        max = quad_max(max);
        const float shrink = mm_exp2((rows.max[half] - max) * scale2);
        const float max2 = max * scale2;
        rows.max[half] = max;
#pragma unroll
        for (int j = 0; j < MM_TILE / 8; j++)
#pragma unroll
            for (int k = 2 * half; k < 2 * half + 2; k++) {
                float &x = s[j / 2][0][j % 2][k];
                x = mm_exp2(x * scale2 - max2);
                sum += x;
            }
        rows.sum[half] = rows.sum[half] * shrink + sum;
#pragma unroll
        for (int j = 0; j < MM_HEAD / 8; j++) {
            out[0][j][2 * half] *= shrink;
            out[0][j][2 * half + 1] *= shrink;
        }
    }
}

/** One tile of keys, of which the warp sees the first n_chunks times 16. */
template <typename T>
__device__ __forceinline__ void
add_tile(softmax_rows &rows, float out[1][MM_HEAD / 8][4],
         const uint32_t queries[][4], const T *keys, const T *values,
         const mm_attention_arguments<T> &a, int first, int j0, int n_chunks,
         float scale2)
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
    float s[TILE_CHUNKS][1][2][4] = {};
#pragma unroll
    for (int c = 0; c < TILE_CHUNKS; c++)
        if (c < n_chunks)
            mm_times_transpose<T>(s[c][0], queries,
                                  keys + c * MM_CHUNK * mm_tile<T>::LD);
    /* Rows past the end are zeros and see every key. */
    if (j0 + MM_TILE > a.n_tokens || (a.causal && j0 + MM_TILE > first))
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int query = first + g + half * 8;
            const int end = a.causal ? min(query + 1, a.n_tokens) : a.n_tokens;
            const int n_seen = end - j0 - 2 * t;
#pragma unroll
            for (int j = 0; j < MM_TILE / 8; j++)
#pragma unroll
                for (int k = 0; k < 2; k++)
                    if (8 * j + k >= n_seen)
                        s[j / 2][0][j % 2][2 * half + k] = -INFINITY;
        }
    soften(rows, s, out, scale2);
#pragma unroll
    for (int c = 0; c < TILE_CHUNKS; c++)
        if (c < n_chunks)
            mm_add_times<1>(out, s[c], values + c * MM_CHUNK * mm_tile<T>::LD);
}

template <typename T> size_t shared_bytes(int n_warps)
{
    const int n_rows = n_warps * MM_CHUNK + 4 * MM_TILE;
    return (size_t)n_rows * mm_tile<T>::LD * sizeof(T);
}
} // namespace

/* A warp has 16 queries of one head. The block walks over tiles of keys, of
 * which it copies the next while it works on one. */
template <typename T>
__global__ void __launch_bounds__(MOST_WARPS *MM_WARP, sizeof(T) == 2 ? 2 : 1)
    mm_attention_kernel(mm_attention_arguments<T> a, int blocks_a_head)
{
    MM_DYNAMIC_SHARED(T, queries);
    const int block_rows = (int)blockDim.x / MM_WARP * MM_CHUNK;
    T *keys = queries + block_rows * mm_tile<T>::LD;
    T *values = keys + 2 * mm_tile<T>::ELEMS;
    const int block_first = (int)(blockIdx.x % blocks_a_head) * block_rows;
    const int first = block_first + (int)(threadIdx.x / MM_WARP) * MM_CHUNK;
    const int task = (int)(blockIdx.x / blocks_a_head);
    const mm_head_view<T> h =
        mm_view_head(a, task / a.n_heads, task % a.n_heads);
    const float scale2 = MM_LOG2_E / sqrtf((float)MM_HEAD);
    const int block_end =
        a.causal ? min(a.n_tokens, block_first + block_rows) : a.n_tokens;
    const int end = a.causal ? min(a.n_tokens, first + MM_CHUNK) : a.n_tokens;
    mm_copy_tokens(queries, h.q, h.qkv_ld, block_first, block_rows, a.n_tokens);
    mm_copy_tokens(keys, h.k, h.qkv_ld, 0, MM_TILE, a.n_tokens);
    mm_copy_tokens(values, h.v, h.qkv_ld, 0, MM_TILE, a.n_tokens);
    mm_close_copies();
    mm_wait_copies<0>();
    mm_round_tokens(queries, block_rows);
    mm_round_tokens(keys, MM_TILE);
    mm_round_tokens(values, MM_TILE);
    __syncthreads();
    uint32_t rows_of_queries[mm_tile<T>::STEPS][4];
    mm_load_rows<T>(rows_of_queries,
                    queries + (first - block_first) * mm_tile<T>::LD);
    softmax_rows rows;
    float out[1][MM_HEAD / 8][4] = {};
    for (int j0 = 0, at = 0; j0 < block_end; j0 += MM_TILE) {
        const int next = mm_tile<T>::ELEMS - at;
        const bool more = j0 + MM_TILE < block_end;
        if (more) {
            mm_copy_tokens(keys + next, h.k, h.qkv_ld, j0 + MM_TILE, MM_TILE,
                           a.n_tokens);
            mm_copy_tokens(values + next, h.v, h.qkv_ld, j0 + MM_TILE, MM_TILE,
                           a.n_tokens);
            mm_close_copies();
        }
        if (first < a.n_tokens && j0 < end)
            add_tile(rows, out, rows_of_queries, keys + at, values + at, a,
                     first, j0, (end - j0 + MM_CHUNK - 1) / MM_CHUNK, scale2);
        if (more) {
            mm_wait_copies<0>();
            mm_round_tokens(keys + next, MM_TILE);
            mm_round_tokens(values + next, MM_TILE);
            __syncthreads();
        }
        at = next;
    }
    if (first >= a.n_tokens)
        return;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = quad_sum(rows.sum[half]);
        const int token = first + mm_lane() / 4 + 8 * half;
        factor[half] = 1.0f / sum;
        if (h.lse && mm_lane() % 4 == 0 && token < a.n_tokens)
            h.lse[token] = rows.max[half] * scale2 / MM_LOG2_E + logf(sum);
    }
    mm_store_rows<MM_HEAD / 8>(h.to_out, h.out_ld, first, a.n_tokens, out[0],
                               factor);
}

/* As many warps as leave the fewest without a row; the most of those. */
static int choose_warps(int n_tokens)
{
    const int n_chunks = (int)mm_ceil_div(n_tokens, MM_CHUNK);
    int best = 4;
    for (int n = 5; n <= MOST_WARPS; n++)
        if (mm_ceil_div(n_chunks, n) * n <= mm_ceil_div(n_chunks, best) * best)
            best = n;
    return best;
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
    const int n_warps = choose_warps(a.n_tokens);
    const int blocks_a_head = (int)mm_ceil_div(n_tokens, n_warps * MM_CHUNK);
    const int64_t n_blocks = n_images * n_heads * blocks_a_head;
    MM_CUDA_REQUIRE("attention", n_blocks <= INT32_MAX);
    MM_TRY(mm_allow_shared("attention", mm_attention_kernel<T>,
                           shared_bytes<T>(n_warps)));
    MM_LAUNCH((mm_attention_kernel<T>), (unsigned)n_blocks, n_warps * MM_WARP,
              shared_bytes<T>(n_warps), mm_cuda_stream_of(stream)->stream, a,
              blocks_a_head);
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
