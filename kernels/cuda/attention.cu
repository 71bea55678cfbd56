/* Attention on tensor cores for heads of 64, and the op that chooses between it
 * and attention_any.cu. */

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
template <int CHUNKS>
__device__ __forceinline__ void
update_softmax(softmax_rows &rows, float s[CHUNKS][1][2][4],
               float out[1][MM_HEAD / 8][4], float scale2)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float max = rows.max[half], sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 2 * CHUNKS; j++)
            max = fmaxf(max, fmaxf(s[j / 2][0][j % 2][2 * half],
                                   s[j / 2][0][j % 2][2 * half + 1]));
        max = quad_max(max);
        const float shrink = mm_exp2((rows.max[half] - max) * scale2);
        const float max2 = max * scale2;
        rows.max[half] = max;
#pragma unroll
        for (int j = 0; j < 2 * CHUNKS; j++)
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

/** Where the warp is: its first query, and a tile's first key. */
struct place {
    int query, key, n_tokens;
    int ahead; /* query i sees keys 0 .. i + ahead - 1: 1 when causal, else all
                */
    float scale2;
    /** Of the keys from `key` on, how many does a row of the warp see? */
    __device__ __forceinline__ int n_seen(int row) const
    {
        return min(query + row + ahead - key, n_tokens - key);
    }
};

/** Mask the scores of keys that a row does not see; rows past the end are zeros
 * and see every key. */
template <int CHUNKS>
__device__ __forceinline__ void mask(float s[CHUNKS][1][2][4], const place &at)
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int n_seen = at.n_seen(g + half * 8) - 2 * t;
#pragma unroll
        for (int j = 0; j < 2 * CHUNKS; j++)
#pragma unroll
            for (int k = 0; k < 2; k++)
                if (8 * j + k >= n_seen)
                    s[j / 2][0][j % 2][2 * half + k] = -INFINITY;
    }
}

/** The first CHUNKS times 16 keys of a tile. */
template <int CHUNKS, typename T>
__device__ __forceinline__ void
add_chunks(softmax_rows &rows, float out[1][MM_HEAD / 8][4],
           const uint32_t queries[][4], const T *keys, const T *values,
           const place &at)
{
    float s[CHUNKS][1][2][4] = {};
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        mm_times_transpose<T>(s[c][0], queries,
                              keys + c * MM_CHUNK * mm_tile<T>::LD);
    if (at.n_seen(0) < CHUNKS * MM_CHUNK)
        mask<CHUNKS>(s, at);
    update_softmax<CHUNKS>(rows, s, out, at.scale2);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        mm_add_times<1>(out, s[c], values + c * MM_CHUNK * mm_tile<T>::LD);
}

/** One tile of keys, as many times 16 of them as the warp sees. */
template <typename T>
__device__ __forceinline__ void
add_tile(softmax_rows &rows, float out[1][MM_HEAD / 8][4],
         const uint32_t queries[][4], const T *keys, const T *values,
         const place &at)
{
    const int n_seen = at.n_seen(MM_CHUNK - 1);
    static_assert(TILE_CHUNKS == 4, "each has a case");
    if (n_seen > 3 * MM_CHUNK)
        add_chunks<4>(rows, out, queries, keys, values, at);
    else if (n_seen > 2 * MM_CHUNK)
        add_chunks<3>(rows, out, queries, keys, values, at);
    else if (n_seen > MM_CHUNK)
        add_chunks<2>(rows, out, queries, keys, values, at);
    else if (n_seen > 0)
        add_chunks<1>(rows, out, queries, keys, values, at);
}

/** Rows of a tile that begins `left` rows before the end: by 16. */
__device__ __forceinline__ int rows_of_tile(int left)
{
    return min(MM_TILE, (left + MM_CHUNK - 1) / MM_CHUNK * MM_CHUNK);
}

/** Start copying a tile of keys and one of values, which lie `width` behind. */
template <typename T>
__device__ __forceinline__ void copy_tile(T *keys, const T *k, int width,
                                          int left)
{
    const mm_rows<T> tiles[] = {
        {keys, k, 3 * width},
        {keys + 2 * mm_tile<T>::ELEMS, k + width, 3 * width}};
    mm_copy_tokens(tiles, rows_of_tile(left), left);
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
    mm_attention_kernel(mm_attention_arguments<T> a, int blocks_per_head)
{
    MM_DYNAMIC_SHARED(T, queries);
    const int block_rows = (int)blockDim.x / MM_WARP * MM_CHUNK;
    T *keys = queries + block_rows * mm_tile<T>::LD;
    T *values = keys + 2 * mm_tile<T>::ELEMS;
    const int block_first = (int)(blockIdx.x % blocks_per_head) * block_rows;
    const int first = block_first + (int)(threadIdx.x / MM_WARP) * MM_CHUNK;
    const int task = (int)(blockIdx.x / blocks_per_head);
    const mm_head_view<T> h =
        mm_view_head(a, task / a.n_heads, task % a.n_heads);
    const int ahead = a.causal ? 1 : a.n_tokens;
    const int block_end = min(block_first + block_rows - 1 + ahead, a.n_tokens);
    place at = {first, 0, a.n_tokens, ahead, MM_LOG2_E / sqrtf((float)MM_HEAD)};
    const int width = a.n_heads * MM_HEAD;
    const mm_rows<T> block[] = {
        {queries, h.q + block_first * h.qkv_ld, 3 * width}};
    mm_copy_tokens(block, block_rows, a.n_tokens - block_first);
    const T *k = h.k;
    copy_tile(keys, k, width, block_end);
    mm_commit_copies();
    mm_wait_copies<0>();
    mm_round_tokens(queries, block_rows);
    mm_round_tokens(keys, rows_of_tile(block_end));
    mm_round_tokens(values, rows_of_tile(block_end));
    __syncthreads();
    T *mine = queries + (first - block_first) * mm_tile<T>::LD;
    uint32_t rows_of_queries[mm_tile<T>::STEPS][4];
    mm_load_rows<T>(rows_of_queries, mine);
    softmax_rows rows;
    float out[1][MM_HEAD / 8][4] = {};
    for (int stage = 0; at.key < block_end; at.key += MM_TILE) {
        const int next = mm_tile<T>::ELEMS - stage;
        const int n_left = block_end - at.key - MM_TILE;
        if (n_left > 0) {
            k += MM_TILE * 3 * width;
            copy_tile(keys + next, k, width, n_left);
            mm_commit_copies();
        }
        if (first < a.n_tokens)
            add_tile(rows, out, rows_of_queries, keys + stage, values + stage,
                     at);
        if (n_left > 0) {
            mm_wait_copies<0>();
            mm_round_tokens(keys + next, rows_of_tile(n_left));
            mm_round_tokens(values + next, rows_of_tile(n_left));
            __syncthreads();
        }
        stage = next;
    }
    if (first >= a.n_tokens)
        return;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = quad_sum(rows.sum[half]);
        const int token = first + mm_lane() / 4 + 8 * half;
        factor[half] = 1.0f / sum;
        if (a.lse && mm_lane() % 4 == 0 && token < a.n_tokens)
            a.lse[(int64_t)task * a.n_tokens + token] =
                rows.max[half] * at.scale2 / MM_LOG2_E + logf(sum);
    }
    __syncwarp(); /* the queries have been read */
    mm_store_rows<MM_HEAD / 8>(h.to_out, h.out_ld, first, a.n_tokens, out[0],
                               factor, mine);
}

/* The number of warps for which the fewest are without a row; of equal ones the
 * largest. */
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
                                         (int)n_heads,  (int)(width / n_heads),
                                         nullptr};
    if (!mm_attention_fits(stream, a))
        return mm_attention_any(stream, a);
    const int n_warps = choose_warps(a.n_tokens);
    const int blocks_per_head = (int)mm_ceil_div(n_tokens, n_warps * MM_CHUNK);
    const int64_t n_blocks = n_images * n_heads * blocks_per_head;
    MM_CUDA_REQUIRE("attention", n_blocks <= INT32_MAX);
    MM_TRY(mm_allow_shared("attention", mm_attention_kernel<T>,
                           shared_bytes<T>(n_warps)));
    MM_LAUNCH((mm_attention_kernel<T>), (unsigned)n_blocks, n_warps * MM_WARP,
              shared_bytes<T>(n_warps), mm_cuda_stream_of(stream)->stream, a,
              blocks_per_head);
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
