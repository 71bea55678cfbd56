#ifndef MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_CUH
#define MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_CUH

#include "kernels/cuda/attention_tile.cuh"

/*
 * With p = exp(s - lse), dp = dout v', delta = row sums of dout out, and
 * ds = p (dp - delta): dq = ds k, dk = ds' q, both times the scale, dv = p'
 * dout. A block has one head. Its warps hold keys, whose dk and dv stay in
 * registers while 32 queries after another come by; s, p and ds are transposed.
 * For dq, a sum over keys, the warps leave ds in shared memory and each takes
 * 16 queries and some columns. Where there are more keys than warps can hold,
 * they come in passes, between which dq stays in shared memory.
 */

namespace
{
enum {
    QUERIES = 32, /* at a time */
    MOST_WARPS = 8,
    DS_LD = QUERIES + 8
};

/** How one launch is divided; sizes in tokens are multiples of 16 or 32. */
struct grad_plan {
    int n_warps;
    int chunks_a_warp; /* 16 keys each */
    int chunks_a_pass;
    int n_chunks; /* of all keys */
    size_t n_bytes;
};

/** A block's shared memory, in this order. */
template <typename T> struct grad_memory {
    float *dq; /* c tiles as lanes hold them; only where there are passes */
    float *delta, *lse2;
    T *keys, *values;
    T *queries, *douts; /* two stages of QUERIES */
    T *ds;              /* [keys of a pass][DS_LD] */
};

__host__ __device__ __forceinline__ int padded(int n_tokens)
{
    return (n_tokens + QUERIES - 1) / QUERIES * QUERIES;
}

template <typename T> struct grad_stage {
    enum { ELEMS = QUERIES * mm_tile<T>::LD };
};

template <typename T>
__device__ grad_memory<T> divide(float *shared, const grad_plan &plan,
                                 int n_tokens)
{
    grad_memory<T> m;
    const bool passes = plan.n_chunks > plan.chunks_a_pass;
    m.dq = shared;
    m.delta = m.dq + (passes ? plan.n_chunks * MM_CHUNK * MM_HEAD : 0);
    m.lse2 = m.delta + padded(n_tokens);
    m.keys = reinterpret_cast<T *>(m.lse2 + padded(n_tokens));
    m.values = m.keys + plan.chunks_a_pass * MM_CHUNK * mm_tile<T>::LD;
    m.queries = m.values + plan.chunks_a_pass * MM_CHUNK * mm_tile<T>::LD;
    m.douts = m.queries + 2 * grad_stage<T>::ELEMS;
    m.ds = m.douts + 2 * grad_stage<T>::ELEMS;
    return m;
}

/** delta[i] = sum of dout * out over the row, lse2[i] = lse * log2(e), such
 * that p is zero past the end. */
template <typename T>
__device__ __forceinline__ void load_statistics(float *delta, float *lse2,
                                                const mm_head_view<T> &h,
                                                int n_tokens)
{
    constexpr int N = mm_wide<T>, PARTS = mm_tile<T>::PARTS;
#pragma unroll 4
    for (int i = (int)threadIdx.x; i < padded(n_tokens) * PARTS;
         i += (int)blockDim.x) {
        const int row = i / PARTS;
        const int64_t at = min(row, n_tokens - 1) * h.out_ld + i % PARTS * N;
        const mm_vec<float, N> x = mm_load_floats<N>(h.dout + at);
        const mm_vec<float, N> y = mm_load_floats<N>(h.out + at);
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < N; k++)
            sum += x.v[k] * y.v[k];
#pragma unroll
        for (int other = PARTS / 2; other > 0; other /= 2)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, other);
        if (i % PARTS == 0) {
            delta[row] = row < n_tokens ? sum : 0.0f;
            lse2[row] = row < n_tokens ? h.lse[row] * MM_LOG2_E : INFINITY;
        }
    }
}

/** Where the block is. */
struct grad_place {
    int first_key, n_chunks; /* of this pass */
    int query;               /* the first of QUERIES */
    int n_tokens;
    bool causal;
    float scale2;
};

/** s becomes p, dp becomes ds; rows are 16 keys, columns 16 queries. */
__device__ __forceinline__ void differentiate(float p[2][4], float ds[2][4],
                                              const float *lse2,
                                              const float *delta, int key,
                                              int query, const grad_place &at)
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const mm_vec<float, 2> l = mm_load<2>(lse2 + query + 8 * n + 2 * t);
        const mm_vec<float, 2> d = mm_load<2>(delta + query + 8 * n + 2 * t);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int row = key + g + k / 2 * 8;
            /* Columns that do not see the key. */
            const int n_hidden = row >= at.n_tokens ? MM_CHUNK
                                 : at.causal        ? row - query - 2 * t
                                                    : 0;
            const float x = mm_exp2(p[n][k] * at.scale2 - l.v[k % 2]);
            p[n][k] = 8 * n + k % 2 < n_hidden ? 0.0f : x;
            ds[n][k] = p[n][k] * (ds[n][k] - d.v[k % 2]);
        }
    }
}

/** Leave 16 keys times 16 queries, rounded, for the sum over keys. */
template <typename T>
__device__ __forceinline__ void leave(T *to, const float ds[2][4])
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            mm_vec<T, 2> pair;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                mm_set(pair.v[k], ds[n][2 * half + k]);
                pair.v[k] = mm_tile_element(pair.v[k]);
            }
            mm_store<2>(to + (g + 8 * half) * DS_LD + 8 * n + 2 * t, pair);
        }
}

/** 16 queries against M times 16 keys of the warp: chunk, chunk + n_warps. */
template <int M, typename T>
__device__ __forceinline__ void add_keys(float dk[][MM_HEAD / 8][4],
                                         float dv[][MM_HEAD / 8][4],
                                         const grad_memory<T> &m, int stage,
                                         int chunk, int c, const grad_place &at)
{
    constexpr int LD = mm_tile<T>::LD;
    const int n_warps = (int)blockDim.x / MM_WARP;
    const T *queries = m.queries + stage + c * MM_CHUNK * LD;
    const T *douts = m.douts + stage + c * MM_CHUNK * LD;
    const T *keys[M], *values[M];
    float p[M][2][4] = {}, ds[M][2][4] = {};
#pragma unroll
    for (int i = 0; i < M; i++) {
        keys[i] = m.keys + (chunk + i * n_warps) * MM_CHUNK * LD;
        values[i] = m.values + (chunk + i * n_warps) * MM_CHUNK * LD;
    }
    mm_rows_times_transpose<M>(p, keys, queries);
    mm_rows_times_transpose<M>(ds, values, douts);
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int row = (chunk + i * n_warps) * MM_CHUNK;
        differentiate(p[i], ds[i], m.lse2, m.delta, at.first_key + row,
                      at.query + c * MM_CHUNK, at);
        leave(m.ds + row * DS_LD + c * MM_CHUNK, ds[i]);
    }
    mm_add_times<M>(dv, p, douts);
    mm_add_times<M>(dk, ds, queries);
}

/** QUERIES against the warp's keys, those that see none of them left out. */
template <int M, typename T>
__device__ __forceinline__ void
add_queries(float dk[M][MM_HEAD / 8][4], float dv[M][MM_HEAD / 8][4],
            const grad_memory<T> &m, int stage, const grad_place &at)
{
    const int chunk = (int)(threadIdx.x / MM_WARP);
    const int n_warps = (int)blockDim.x / MM_WARP;
#pragma unroll 1
    for (int c = 0; c < QUERIES / MM_CHUNK; c++) {
        const int query = at.query + c * MM_CHUNK;
        if (query >= at.n_tokens)
            break;
        const int n_seen =
            at.causal ? min(at.n_chunks, (query - at.first_key) / MM_CHUNK + 1)
                      : at.n_chunks;
        if (M == 2 && chunk + n_warps < n_seen)
            add_keys<M>(dk, dv, m, stage, chunk, c, at);
        else if (chunk < n_seen)
            add_keys<1>(dk, dv, m, stage, chunk, c, at);
    }
}

/** The warp's share of dq of QUERIES: 16 of them, COLS times 8 columns. */
template <int COLS, typename T>
__device__ __forceinline__ void add_dq(const mm_head_view<T> &h,
                                       const grad_memory<T> &m, bool passes,
                                       const grad_place &at)
{
    constexpr int LD = mm_tile<T>::LD, SHARES = MM_HEAD / 8 / COLS;
    const int warp = (int)(threadIdx.x / MM_WARP);
    const int c = warp / SHARES * MM_CHUNK, query = at.query + c;
    const int col = warp % SHARES * COLS * 8;
    const int n_seen =
        at.causal ? min(at.n_chunks, (query - at.first_key) / MM_CHUNK + 1)
                  : at.n_chunks;
    if (query >= at.n_tokens || n_seen <= 0)
        return;
    float *kept = m.dq + (query * MM_HEAD + col * MM_CHUNK) + mm_lane() * 4;
    float sum[COLS][4] = {};
    if (passes && at.first_key > 0)
#pragma unroll
        for (int j = 0; j < COLS; j++) {
            const mm_vec<float, 4> x = mm_load<4>(kept + j * MM_WARP * 4);
#pragma unroll
            for (int k = 0; k < 4; k++)
                sum[j][k] = x.v[k];
        }
#pragma unroll 2
    for (int s = 0; s < n_seen * mm_tile<T>::CHUNK_STEPS; s++) {
        const int key = s * mm_mma<T>::K;
        uint32_t a[4];
        mm_load_a_columns(a, m.ds + key * DS_LD + c, DS_LD);
#pragma unroll
        for (int j = 0; j < COLS; j += 2) {
            uint32_t b[2][2];
            mm_load_b(b, m.keys + key * LD + col + 8 * j, LD);
            mm_multiply(sum[j], a, b[0], T());
            mm_multiply(sum[j + 1], a, b[1], T());
        }
    }
    if (!passes) {
        const float scale = 1.0f / sqrtf((float)MM_HEAD);
        const float scales[2] = {scale, scale};
        mm_store_rows<COLS>(h.dq + col, h.qkv_ld, query, at.n_tokens, sum,
                            scales);
        return;
    }
#pragma unroll
    for (int j = 0; j < COLS; j++) {
        mm_vec<float, 4> x;
#pragma unroll
        for (int k = 0; k < 4; k++)
            x.v[k] = sum[j][k];
        mm_store<4>(kept + j * MM_WARP * 4, x);
    }
}

/** dq that was kept over the passes; 16 queries a warp at a time. */
template <typename T>
__device__ __forceinline__ void store_dq(const mm_head_view<T> &h,
                                         const float *dq, int n_tokens)
{
    const float scale = 1.0f / sqrtf((float)MM_HEAD);
    const float scales[2] = {scale, scale};
    for (int query = (int)(threadIdx.x / MM_WARP) * MM_CHUNK; query < n_tokens;
         query += (int)blockDim.x / MM_WARP * MM_CHUNK) {
        float sum[MM_HEAD / 8][4];
#pragma unroll
        for (int j = 0; j < MM_HEAD / 8; j++) {
            const mm_vec<float, 4> x = mm_load<4>(
                dq + query * MM_HEAD + (j * MM_WARP + mm_lane()) * 4);
#pragma unroll
            for (int k = 0; k < 4; k++)
                sum[j][k] = x.v[k];
        }
        mm_store_rows<MM_HEAD / 8>(h.dq, h.qkv_ld, query, n_tokens, sum,
                                   scales);
    }
}

template <typename T>
__device__ __forceinline__ void copy_queries(const grad_memory<T> &m, int stage,
                                             const mm_head_view<T> &h,
                                             int query, int n_tokens)
{
    mm_copy_tokens(m.queries + stage, h.q, h.qkv_ld, query, QUERIES, n_tokens);
    mm_copy_tokens(m.douts + stage, h.dout, h.out_ld, query, QUERIES, n_tokens);
    mm_close_copies();
}

template <typename T>
__device__ __forceinline__ void round_queries(const grad_memory<T> &m,
                                              int stage)
{
    mm_round_tokens(m.queries + stage, QUERIES);
    mm_round_tokens(m.douts + stage, QUERIES);
}
} // namespace

/* M: chunks of keys that a warp holds. */
template <int M, typename T>
__global__ void __launch_bounds__(M == 1 ? 4 * MM_WARP : MOST_WARPS * MM_WARP,
                                  M == 1 ? 4 : 1)
    mm_attention_grad_kernel(mm_attention_arguments<T> a, grad_plan plan)
{
    MM_DYNAMIC_SHARED(float, shared);
    const grad_memory<T> m = divide<T>(shared, plan, a.n_tokens);
    const mm_head_view<T> h = mm_view_head(a, (int)blockIdx.x / a.n_heads,
                                           (int)blockIdx.x % a.n_heads);
    const bool passes = plan.n_chunks > plan.chunks_a_pass;
    const float scale = 1.0f / sqrtf((float)MM_HEAD);
    const float scales[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
    for (int chunk = 0; chunk < plan.n_chunks; chunk += plan.chunks_a_pass) {
        grad_place at = {chunk * MM_CHUNK,
                         min(plan.chunks_a_pass, plan.n_chunks - chunk),
                         a.causal ? chunk * MM_CHUNK / QUERIES * QUERIES : 0,
                         a.n_tokens,
                         a.causal,
                         MM_LOG2_E * scale};
        const int n_keys = at.n_chunks * MM_CHUNK;
        mm_copy_tokens(m.keys, h.k, h.qkv_ld, at.first_key, n_keys, a.n_tokens);
        mm_copy_tokens(m.values, h.v, h.qkv_ld, at.first_key, n_keys,
                       a.n_tokens);
        copy_queries(m, 0, h, at.query, a.n_tokens);
        if (chunk == 0)
            load_statistics(m.delta, m.lse2, h, a.n_tokens);
        mm_wait_copies<0>();
        mm_round_tokens(m.keys, n_keys);
        mm_round_tokens(m.values, n_keys);
        round_queries(m, 0);
        __syncthreads();
        float dk[M][MM_HEAD / 8][4] = {}, dv[M][MM_HEAD / 8][4] = {};
        for (int stage = 0; at.query < a.n_tokens; at.query += QUERIES) {
            const int next = grad_stage<T>::ELEMS - stage;
            if (at.query + QUERIES < a.n_tokens)
                copy_queries(m, next, h, at.query + QUERIES, a.n_tokens);
            add_queries<M>(dk, dv, m, stage, at);
            __syncthreads();
            if (plan.n_warps == 4)
                add_dq<4>(h, m, passes, at);
            else
                add_dq<2>(h, m, passes, at);
            mm_wait_copies<0>();
            if (at.query + QUERIES < a.n_tokens)
                round_queries(m, next);
            __syncthreads();
            stage = next;
        }
#pragma unroll
        for (int i = 0; i < M; i++) {
            const int mine = (int)(threadIdx.x / MM_WARP) + i * plan.n_warps;
            if (mine >= at.n_chunks)
                continue;
            const int key = at.first_key + mine * MM_CHUNK;
            mm_store_rows<MM_HEAD / 8>(h.dk, h.qkv_ld, key, a.n_tokens, dk[i],
                                       scales);
            mm_store_rows<MM_HEAD / 8>(h.dv, h.qkv_ld, key, a.n_tokens, dv[i],
                                       ones);
        }
    }
    if (passes)
        store_dq(h, m.dq, a.n_tokens);
}

#endif
