#ifndef MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_BLOCK_CUH
#define MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_BLOCK_CUH

#include "kernels/cuda/attention_tile.cuh"

/* What a block of attention_grad has in shared memory, and where it is. */

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
    int chunks_per_warp; /* 16 keys each */
    int chunks_per_pass;
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
    const bool passes = plan.n_chunks > plan.chunks_per_pass;
    m.dq = shared;
    m.delta = m.dq + (passes ? plan.n_chunks * MM_CHUNK * MM_HEAD : 0);
    m.lse2 = m.delta + padded(n_tokens);
    m.keys = reinterpret_cast<T *>(m.lse2 + padded(n_tokens));
    m.values = m.keys + plan.chunks_per_pass * MM_CHUNK * mm_tile<T>::LD;
    m.queries = m.values + plan.chunks_per_pass * MM_CHUNK * mm_tile<T>::LD;
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
    const int step = (int)blockDim.x / PARTS;
    const int part = (int)threadIdx.x % PARTS;
    const T *dout = h.dout + part * N, *out = h.out + part * N;
#pragma unroll 4
    for (int row = (int)threadIdx.x / PARTS; row < padded(n_tokens);
         row += step) {
        const int64_t at = (int64_t)min(row, n_tokens - 1) * (int)h.out_ld;
        const mm_vec<float, N> x = mm_load_floats<N>(dout + at);
        const mm_vec<float, N> y = mm_load_floats<N>(out + at);
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < N; k++)
            sum += x.v[k] * y.v[k];
#pragma unroll
        for (int other = PARTS / 2; other > 0; other /= 2)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, other);
        if (part == 0) {
            delta[row] = row < n_tokens ? sum : 0.0f;
            lse2[row] = row < n_tokens ? h.lse[row] * MM_LOG2_E : INFINITY;
        }
    }
}

/** Where the block is. */
struct grad_place {
    int first_key, n_chunks; /* of this pass */
    int n_all;               /* chunks of all passes */
    int mine;                /* the warp's first chunk of this pass */
    int query;               /* the first of QUERIES */
    int n_tokens;
    bool causal;
    float scale2;
    /** How many chunks of all keys do the 16 queries from `first` on see? */
    __device__ __forceinline__ int n_seen(int first) const
    {
        return causal ? first / MM_CHUNK + 1 : n_all;
    }
};

/** Of the chunks of all keys, numbered through, a warp has every n_warps'th, so
 * that what one has more than another in a pass it has less in the next; which
 * warp is first differs between blocks that share a multiprocessor. */
__device__ __forceinline__ int first_chunk(int chunk, int n_warps)
{
    const int warp = (int)threadIdx.x / MM_WARP;
    const int first = (int)((blockIdx.x + (unsigned)chunk) % (unsigned)n_warps);
    return warp >= first ? warp - first : warp - first + n_warps;
}
} // namespace

#endif
