/*
 * Heads of any width up to 256, in fp32: eight warps of four rows each, tiles
 * of 32 columns, one per lane. A lane keeps columns lane, lane + 32, ... of its
 * rows' sums.
 */

#include "kernels/cuda/attention.cuh"

namespace
{
enum { TILE = 32, THREADS = 256, ROWS_PER_WARP = 4 };

/** Elements between rows in shared memory: odd, against conflicts. */
__host__ __device__ __forceinline__ int row_elems(int head_width)
{
    return head_width | 1;
}

template <typename T>
__device__ void load(float *tile, const T *x, int64_t ld, int first,
                     int n_tokens, int head_width)
{
    for (int row = (int)(threadIdx.x / MM_WARP); row < TILE;
         row += THREADS / MM_WARP)
        for (int d = mm_lane(); d < head_width; d += MM_WARP)
            tile[row * row_elems(head_width) + d] =
                first + row < n_tokens ? mm_float_of(x[(first + row) * ld + d])
                                       : 0.0f;
}

/** Each row's sum of out * dout, and its lse. */
template <typename T>
__device__ void load_statistics(float *delta, float *lse,
                                const mm_head_view<T> &h, int first,
                                int n_tokens, int head_width)
{
    for (int row = (int)(threadIdx.x / MM_WARP); row < TILE;
         row += THREADS / MM_WARP) {
        const int64_t at = (first + row) * h.out_ld;
        float sum = 0.0f;
        for (int d = mm_lane(); d < head_width; d += MM_WARP)
            if (first + row < n_tokens)
                sum += mm_float_of(h.out[at + d]) * mm_float_of(h.dout[at + d]);
        sum = mm_warp_sum(sum);
        if (mm_lane() == 0) {
            delta[row] = sum;
            lse[row] = first + row < n_tokens ? h.lse[first + row] : 0.0f;
        }
    }
}

/** s[r] = the warp's row r times the lane's row of the other tile. */
__device__ __forceinline__ void scores(float s[ROWS_PER_WARP],
                                       const float *rows, const float *others,
                                       int head_width)
{
    const int ld = row_elems(head_width);
    const float *mine = rows + threadIdx.x / MM_WARP * ROWS_PER_WARP * ld;
    const float *other = others + mm_lane() * ld;
    for (int r = 0; r < ROWS_PER_WARP; r++)
        s[r] = 0.0f;
    for (int d = 0; d < head_width; d++)
#pragma unroll
        for (int r = 0; r < ROWS_PER_WARP; r++)
            s[r] += mine[r * ld + d] * other[d];
}

/** sum[r][..] += weights[r] (one per lane) times the other tile. `share` is the
 * warp's place to exchange them. */
template <int COLS>
__device__ __forceinline__ void
add(float sum[ROWS_PER_WARP][COLS], const float weights[ROWS_PER_WARP],
    float *share, const float *others, int head_width)
{
    __syncwarp();
#pragma unroll
    for (int r = 0; r < ROWS_PER_WARP; r++)
        share[r * TILE + mm_lane()] = weights[r];
    __syncwarp();
    for (int j = 0; j < TILE; j++)
#pragma unroll
        for (int c = 0; c < COLS; c++) {
            const int d = c * MM_WARP + mm_lane();
            if (d >= head_width)
                continue;
            const float other = others[j * row_elems(head_width) + d];
#pragma unroll
            for (int r = 0; r < ROWS_PER_WARP; r++)
                sum[r][c] += share[r * TILE + j] * other;
        }
}

template <int COLS, typename T>
__device__ __forceinline__ void
store(T *to, int64_t ld, int first, int n_tokens, int head_width,
      const float sum[ROWS_PER_WARP][COLS], const float factor[ROWS_PER_WARP])
{
#pragma unroll
    for (int r = 0; r < ROWS_PER_WARP; r++) {
        const int token =
            first + (int)(threadIdx.x / MM_WARP) * ROWS_PER_WARP + r;
#pragma unroll
        for (int c = 0; c < COLS; c++) {
            const int d = c * MM_WARP + mm_lane();
            if (token < n_tokens && d < head_width)
                mm_set(to[token * ld + d], sum[r][c] * factor[r]);
        }
    }
}
} // namespace

template <int COLS, typename T>
__global__ void __launch_bounds__(THREADS)
    mm_attention_any_kernel(mm_attention_arguments<T> a, int n_tiles)
{
    MM_DYNAMIC_SHARED(float, queries);
    MM_SHARED(float, exchange, TILE *TILE);
    const int tile_elems = TILE * row_elems(a.head_width);
    float *keys = queries + tile_elems, *values = keys + tile_elems;
    const int warp = (int)(threadIdx.x / MM_WARP);
    float *share = exchange + warp * ROWS_PER_WARP * TILE;
    const int first = (int)(blockIdx.x % n_tiles) * TILE;
    const int task = (int)(blockIdx.x / n_tiles);
    const mm_head_view<T> h =
        mm_view_head(a, task / a.n_heads, task % a.n_heads);
    const float scale = 1.0f / sqrtf((float)a.head_width);
    load(queries, h.q, h.qkv_ld, first, a.n_tokens, a.head_width);
    float out[ROWS_PER_WARP][COLS] = {}, max[ROWS_PER_WARP], sum[ROWS_PER_WARP];
    for (int r = 0; r < ROWS_PER_WARP; r++) {
        max[r] = -INFINITY;
        sum[r] = 0.0f;
    }
    const int end = a.causal ? min(a.n_tokens, first + TILE) : a.n_tokens;
    for (int j0 = 0; j0 < end; j0 += TILE) {
        __syncthreads();
        load(keys, h.k, h.qkv_ld, j0, a.n_tokens, a.head_width);
        load(values, h.v, h.qkv_ld, j0, a.n_tokens, a.head_width);
        __syncthreads();
        float s[ROWS_PER_WARP];
        scores(s, queries, keys, a.head_width);
#pragma unroll
        for (int r = 0; r < ROWS_PER_WARP; r++) {
            /* Rows past the end see what the last one sees. */
            const int i = min(first + warp * ROWS_PER_WARP + r, a.n_tokens - 1);
            const bool seen = mm_sees(a.causal, a.n_tokens, i, j0 + mm_lane());
            s[r] = seen ? s[r] * scale : -INFINITY;
            const float largest = fmaxf(max[r], mm_warp_max(s[r]));
            const float shrink = expf(max[r] - largest);
            s[r] = expf(s[r] - largest);
            sum[r] = sum[r] * shrink + s[r];
            max[r] = largest;
            for (int c = 0; c < COLS; c++)
                out[r][c] *= shrink;
        }
        add<COLS>(out, s, share, values, a.head_width);
    }
    float factor[ROWS_PER_WARP];
    for (int r = 0; r < ROWS_PER_WARP; r++) {
        const float all = mm_warp_sum(sum[r]);
        const int token = first + warp * ROWS_PER_WARP + r;
        factor[r] = 1.0f / all;
        if (h.lse && mm_lane() == 0 && token < a.n_tokens)
            h.lse[token] = max[r] + logf(all);
    }
    store<COLS>(h.to_out, h.out_ld, first, a.n_tokens, a.head_width, out,
                factor);
}

/* As mm_attention_grad_kernel, which has the formulas. */
template <bool KEYS, int COLS, typename T>
__global__ void __launch_bounds__(THREADS)
    mm_attention_any_grad_kernel(mm_attention_arguments<T> a, int n_tiles)
{
    MM_DYNAMIC_SHARED(float, first_rows);
    MM_SHARED(float, exchange, TILE *TILE);
    MM_SHARED(float, delta, TILE);
    MM_SHARED(float, lse, TILE);
    const int tile_elems = TILE * row_elems(a.head_width);
    float *second_rows = first_rows + tile_elems;
    float *first_tile = second_rows + tile_elems;
    float *second_tile = first_tile + tile_elems;
    const int warp = (int)(threadIdx.x / MM_WARP);
    float *share = exchange + warp * ROWS_PER_WARP * TILE;
    const int first = (int)(blockIdx.x % n_tiles) * TILE;
    const int task = (int)(blockIdx.x / n_tiles);
    const mm_head_view<T> h =
        mm_view_head(a, task / a.n_heads, task % a.n_heads);
    const int64_t second_ld = KEYS ? h.qkv_ld : h.out_ld;
    const int64_t other_ld = KEYS ? h.out_ld : h.qkv_ld;
    const float scale = 1.0f / sqrtf((float)a.head_width);
    load(first_rows, KEYS ? h.k : h.q, h.qkv_ld, first, a.n_tokens,
         a.head_width);
    load(second_rows, KEYS ? h.v : h.dout, second_ld, first, a.n_tokens,
         a.head_width);
    if (!KEYS)
        load_statistics(delta, lse, h, first, a.n_tokens, a.head_width);
    float first_sum[ROWS_PER_WARP][COLS] = {},
          second_sum[ROWS_PER_WARP][COLS] = {};
    const int begin = KEYS && a.causal ? first : 0;
    const int end =
        !KEYS && a.causal ? min(a.n_tokens, first + TILE) : a.n_tokens;
    for (int j0 = begin; j0 < end; j0 += TILE) {
        __syncthreads();
        load(first_tile, KEYS ? h.q : h.k, h.qkv_ld, j0, a.n_tokens,
             a.head_width);
        load(second_tile, KEYS ? h.dout : h.v, other_ld, j0, a.n_tokens,
             a.head_width);
        if (KEYS)
            load_statistics(delta, lse, h, j0, a.n_tokens, a.head_width);
        __syncthreads();
        float p[ROWS_PER_WARP], ds[ROWS_PER_WARP];
        scores(p, first_rows, first_tile, a.head_width);
        scores(ds, second_rows, second_tile, a.head_width);
#pragma unroll
        for (int r = 0; r < ROWS_PER_WARP; r++) {
            const int in_rows = warp * ROWS_PER_WARP + r;
            const int of_query = KEYS ? mm_lane() : in_rows;
            const int query = KEYS ? j0 + mm_lane() : first + in_rows;
            const int key = KEYS ? first + in_rows : j0 + mm_lane();
            p[r] = mm_sees(a.causal, a.n_tokens, query, key)
                       ? expf(p[r] * scale - lse[of_query])
                       : 0.0f;
            ds[r] = p[r] * (ds[r] - delta[of_query]);
        }
        add<COLS>(first_sum, ds, share, first_tile, a.head_width);
        if (KEYS)
            add<COLS>(second_sum, p, share, second_tile, a.head_width);
    }
    const float scales[ROWS_PER_WARP] = {scale, scale, scale, scale};
    const float ones[ROWS_PER_WARP] = {1.0f, 1.0f, 1.0f, 1.0f};
    store<COLS>(KEYS ? h.dk : h.dq, h.qkv_ld, first, a.n_tokens, a.head_width,
                first_sum, scales);
    if (KEYS)
        store<COLS>(h.dv, h.qkv_ld, first, a.n_tokens, a.head_width, second_sum,
                    ones);
}

namespace
{
/** Launch a kernel whose blocks take 32 tokens of a head each. */
template <typename T>
mm_status launch(mm_stream *stream, const char *op, int n_arrays,
                 void (*kernel)(mm_attention_arguments<T>, int),
                 const mm_attention_arguments<T> &a)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    const int n_tiles = (int)mm_ceil_div(a.n_tokens, TILE);
    const int64_t n_blocks = (int64_t)a.n_images * a.n_heads * n_tiles;
    const int n_bytes =
        n_arrays * TILE * row_elems(a.head_width) * (int)sizeof(float);
    MM_CUDA_REQUIRE(op, n_blocks <= INT32_MAX);
    MM_TRY(MM_CUDA(
        cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, n_bytes),
        "%s with heads of %d needs %d bytes of shared memory", op, a.head_width,
        n_bytes));
    MM_LAUNCH(kernel, (unsigned)n_blocks, THREADS, (size_t)n_bytes,
              cuda->stream, a, n_tiles);
    return MM_CUDA(cudaGetLastError(),
                   "%s of %d images, %d tokens, %d heads of %d", op, a.n_images,
                   a.n_tokens, a.n_heads, a.head_width);
}

template <int COLS, typename T>
mm_status launch_grad(mm_stream *stream, const mm_attention_arguments<T> &a)
{
    MM_TRY(launch(stream, "attention_grad", 4,
                  mm_attention_any_grad_kernel<false, COLS, T>, a));
    return launch(stream, "attention_grad", 4,
                  mm_attention_any_grad_kernel<true, COLS, T>, a);
}

mm_status refuse(const char *op, int head_width)
{
    return mm_fail(MM_E_ARG, "op %s on a GPU takes heads of up to %d, not %d",
                   op, (int)MM_MOST_HEAD, head_width);
}
} // namespace

template <typename T>
mm_status mm_attention_any(mm_stream *stream,
                           const mm_attention_arguments<T> &a)
{
    if (a.head_width > MM_MOST_HEAD)
        return refuse("attention", a.head_width);
    if (a.head_width <= 2 * MM_WARP)
        return launch(stream, "attention", 3, mm_attention_any_kernel<2, T>, a);
    if (a.head_width <= 4 * MM_WARP)
        return launch(stream, "attention", 3, mm_attention_any_kernel<4, T>, a);
    return launch(stream, "attention", 3, mm_attention_any_kernel<8, T>, a);
}

template <typename T>
mm_status mm_attention_any_grad(mm_stream *stream,
                                const mm_attention_arguments<T> &a)
{
    if (a.head_width > MM_MOST_HEAD)
        return refuse("attention_grad", a.head_width);
    if (a.head_width <= 2 * MM_WARP)
        return launch_grad<2>(stream, a);
    if (a.head_width <= 4 * MM_WARP)
        return launch_grad<4>(stream, a);
    return launch_grad<8>(stream, a);
}

template mm_status mm_attention_any(mm_stream *,
                                    const mm_attention_arguments<float> &);
template mm_status mm_attention_any(mm_stream *,
                                    const mm_attention_arguments<mm_bf16> &);
template mm_status mm_attention_any_grad(mm_stream *,
                                         const mm_attention_arguments<float> &);
template mm_status
mm_attention_any_grad(mm_stream *, const mm_attention_arguments<mm_bf16> &);
