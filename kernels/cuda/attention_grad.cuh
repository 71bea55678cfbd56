#ifndef MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_CUH
#define MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_CUH

#include "kernels/cuda/attention_grad_block.cuh"
#include "kernels/cuda/attention_grad_sums.cuh"

/*
 * With p = exp(s - lse), dp = dout v', delta = row sums of dout out, and
 * ds = p (dp - delta): dq = ds k, dk = ds' q, both times the scale, dv = p'
 * dout. A block has one head. Its warps hold keys, whose dk and dv stay in
 * registers while the queries are processed, 32 at a time; s, p and ds are
 * transposed.
 * For dq, a sum over keys, the warps leave ds in shared memory and each takes
 * 16 queries and some columns. Where there are more keys than warps can hold,
 * they come in passes, between which dq stays in shared memory.
 */

namespace
{
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
__device__ __forceinline__ void leave(mm_bf16 *to, const float ds[2][4])
{
    mm_store_c(to, DS_LD, ds);
}

__device__ __forceinline__ void leave(float *to, const float ds[2][4])
{
    float rounded[2][4];
#pragma unroll
    for (int k = 0; k < 8; k++)
        rounded[k / 4][k % 4] = mm_tile_element(ds[k / 4][k % 4]);
    mm_store_c(to, DS_LD, rounded);
}

/** 16 queries against M times 16 keys of the warp. */
template <int M, typename T>
__device__ __forceinline__ void
add_keys(float dk[][MM_HEAD / 8][4], float dv[][MM_HEAD / 8][4],
         const grad_memory<T> &m, int stage, int c, const grad_place &at)
{
    constexpr int LD = mm_tile<T>::LD;
    const int n_warps = (int)blockDim.x / MM_WARP;
    const T *queries = m.queries + stage + c * MM_CHUNK * LD;
    const T *douts = m.douts + stage + c * MM_CHUNK * LD;
    const T *keys[M], *values[M];
    float p[M][2][4] = {}, ds[M][2][4] = {};
#pragma unroll
    for (int i = 0; i < M; i++) {
        keys[i] = m.keys + (at.mine + i * n_warps) * MM_CHUNK * LD;
        values[i] = m.values + (at.mine + i * n_warps) * MM_CHUNK * LD;
    }
    mm_rows_times_transpose<M>(p, keys, queries);
    mm_rows_times_transpose<M>(ds, values, douts);
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int row = (at.mine + i * n_warps) * MM_CHUNK;
        differentiate(p[i], ds[i], m.lse2, m.delta, at.first_key + row,
                      at.query + c * MM_CHUNK, at);
        leave(m.ds + row * DS_LD + c * MM_CHUNK, ds[i]);
    }
    mm_add_times<M>(dv, p, douts);
    mm_add_times<M>(dk, ds, queries);
}

/** QUERIES against the warp's keys, without those that see none of them. */
template <int M, typename T>
__device__ __forceinline__ void
add_queries(float dk[M][MM_HEAD / 8][4], float dv[M][MM_HEAD / 8][4],
            const grad_memory<T> &m, int stage, const grad_place &at)
{
    const int n_warps = (int)blockDim.x / MM_WARP;
#pragma unroll 1
    for (int c = 0; c < QUERIES / MM_CHUNK; c++) {
        const int query = at.query + c * MM_CHUNK;
        if (query >= at.n_tokens)
            break;
        const int n_seen =
            min(at.n_chunks, at.n_seen(query) - at.first_key / MM_CHUNK);
        if (M == 2 && at.mine + n_warps < n_seen)
            add_keys<M>(dk, dv, m, stage, c, at);
        else if (at.mine < n_seen)
            add_keys<1>(dk, dv, m, stage, c, at);
    }
}

/** The warp's share of dq of QUERIES: 16 of them, COLS times 8 columns. What is
 * complete is stored, and added up in sums: columns 2 t and 2 t + 1 of each 8.
 * `stage` is free. */
template <int COLS, typename T>
__device__ __forceinline__ void
add_dq(float sums[2 * COLS], const mm_head_view<T> &h, const grad_memory<T> &m,
       int stage, const grad_place &at)
{
    constexpr int LD = mm_tile<T>::LD, SHARES = MM_HEAD / 8 / COLS;
    const int warp = (int)(threadIdx.x / MM_WARP);
    const int c = warp / SHARES * MM_CHUNK, query = at.query + c;
    const int col = warp % SHARES * COLS * 8;
    const int before = at.first_key / MM_CHUNK;
    const int n_seen = min(at.n_chunks, at.n_seen(query) - before);
    if (query >= at.n_tokens || n_seen <= 0)
        return;
    float *kept = m.dq + (query * MM_HEAD + col * MM_CHUNK) + mm_lane() * 4;
    float sum[COLS][4] = {};
    if (before > 0)
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
    if (before + at.n_chunks >= at.n_seen(query)) {
        const float scale = 1.0f / sqrtf((float)MM_HEAD);
        const float scales[2] = {scale, scale};
#pragma unroll
        for (int k = 0; k < 2 * COLS; k++)
            sums[k] += sum[k / 2][k % 2] + sum[k / 2][k % 2 + 2];
        mm_store_rows<COLS>(h.dq + col, h.qkv_ld, query, at.n_tokens, sum,
                            scales, m.queries + stage + c * LD + col);
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

/** Start copying the keys and values of a pass. */
template <typename T>
__device__ __forceinline__ void copy_keys(const grad_memory<T> &m,
                                          const mm_head_view<T> &h,
                                          const grad_place &at)
{
    const int64_t from = at.first_key * h.qkv_ld;
    const mm_rows<T> all[] = {{m.keys, h.k + from, (int)h.qkv_ld},
                              {m.values, h.v + from, (int)h.qkv_ld}};
    mm_copy_tokens(all, at.n_chunks * MM_CHUNK, at.n_tokens - at.first_key);
}

template <typename T>
__device__ __forceinline__ void copy_queries(const grad_memory<T> &m, int stage,
                                             const mm_head_view<T> &h,
                                             int query, int n_tokens)
{
    const mm_rows<T> all[] = {
        {m.queries + stage, h.q + query * h.qkv_ld, (int)h.qkv_ld},
        {m.douts + stage, h.dout + query * h.out_ld, (int)h.out_ld}};
    mm_copy_tokens(all, QUERIES, n_tokens - query);
    mm_commit_copies();
}

template <typename T>
__device__ __forceinline__ void round_queries(const grad_memory<T> &m,
                                              int stage)
{
    mm_round_tokens(m.queries + stage, QUERIES);
    mm_round_tokens(m.douts + stage, QUERIES);
}

/** dk and dv of a pass. Keys and values are not read any more. */
template <int M, typename T>
__device__ __forceinline__ void
store_keys(float dk[M][MM_HEAD / 8][4], float dv[M][MM_HEAD / 8][4],
           const mm_head_view<T> &h, const grad_memory<T> &m,
           const grad_place &at)
{
    const float scale = 1.0f / sqrtf((float)MM_HEAD);
    const float scales[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int chunk = at.mine + i * ((int)blockDim.x / MM_WARP);
        if (chunk >= at.n_chunks)
            continue;
        const int row = chunk * MM_CHUNK, key = at.first_key + row;
        mm_store_rows<MM_HEAD / 8>(h.dk, h.qkv_ld, key, at.n_tokens, dk[i],
                                   scales, m.keys + row * mm_tile<T>::LD);
        mm_store_rows<MM_HEAD / 8>(h.dv, h.qkv_ld, key, at.n_tokens, dv[i],
                                   ones, m.values + row * mm_tile<T>::LD);
    }
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
    for (int chunk = 0; chunk < plan.n_chunks; chunk += plan.chunks_per_pass) {
        grad_place at = {chunk * MM_CHUNK,
                         min(plan.chunks_per_pass, plan.n_chunks - chunk),
                         plan.n_chunks,
                         first_chunk(chunk, plan.n_warps),
                         a.causal ? chunk * MM_CHUNK / QUERIES * QUERIES : 0,
                         a.n_tokens,
                         a.causal,
                         MM_LOG2_E / sqrtf((float)MM_HEAD)};
        if (chunk > 0)
            __syncthreads(); /* what the last pass has left has been read */
        copy_keys(m, h, at);
        copy_queries(m, 0, h, at.query, a.n_tokens);
        if (chunk == 0)
            load_statistics(m.delta, m.lse2, h, a.n_tokens);
        mm_wait_copies<0>();
        mm_round_tokens(m.keys, at.n_chunks * MM_CHUNK);
        mm_round_tokens(m.values, at.n_chunks * MM_CHUNK);
        round_queries(m, 0);
        __syncthreads();
        float dk[M][MM_HEAD / 8][4] = {}, dv[M][MM_HEAD / 8][4] = {};
        float dq_sums[MM_HEAD / 8] = {};
        for (int stage = 0; at.query < a.n_tokens; at.query += QUERIES) {
            const int next = grad_stage<T>::ELEMS - stage;
            if (at.query + QUERIES < a.n_tokens)
                copy_queries(m, next, h, at.query + QUERIES, a.n_tokens);
            add_queries<M>(dk, dv, m, stage, at);
            __syncthreads();
            if (M == 1 || plan.n_warps == 4)
                add_dq<4>(dq_sums, h, m, stage, at);
            else
                add_dq<2>(dq_sums, h, m, stage, at);
            mm_wait_copies<0>();
            if (at.query + QUERIES < a.n_tokens)
                round_queries(m, next);
            __syncthreads();
            stage = next;
        }
        if (a.sums)
            leave_sums<M>(m, dq_sums, dk, dv, at);
        store_keys<M>(dk, dv, h, m, at);
        if (a.sums) {
            __syncthreads();
            add_sums(a, m, plan.n_warps, chunk > 0);
        }
    }
}

#endif
