#ifndef MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_SUMS_CUH
#define MAGMAX_KERNELS_CUDA_ATTENTION_GRAD_SUMS_CUH

#include "kernels/cuda/attention_grad_block.cuh"

/*
 * Sums over tokens of the gradient of q, k and v, for the bias of the layer
 * that made them: a block adds those of its head to its image's, pass by pass,
 * from fp32 and in a fixed order.
 */

namespace
{
/** Columns 2 lane and 2 lane + 1 of the sum of M times 16 rows, by way of 8
 * rows that only this warp uses. */
template <int M>
__device__ __forceinline__ mm_vec<float, 2>
sum_rows(float *rows, const float c[M][MM_HEAD / 8][4])
{
    enum { LD = MM_HEAD + 8 };
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int j = 0; j < MM_HEAD / 8; j++) {
        mm_vec<float, 2> pair = {};
#pragma unroll
        for (int i = 0; i < 2 * M; i++)
#pragma unroll
            for (int k = 0; k < 2; k++)
                pair.v[k] += c[i / 2][j][i % 2 * 2 + k];
        mm_store<2>(rows + g * LD + 8 * j + 2 * t, pair);
    }
    __syncwarp();
    mm_vec<float, 2> sum = {};
#pragma unroll
    for (int row = 0; row < 8; row++) {
        const mm_vec<float, 2> x = mm_load<2>(rows + row * LD + 2 * mm_lane());
        sum.v[0] += x.v[0];
        sum.v[1] += x.v[1];
    }
    __syncwarp();
    return sum;
}

/** What a pass has of sums over tokens, where queries were: of dk and dv each
 * warp's columns, then of dq what each lane has. */
struct grad_sums {
    float *of_keys; /* [n_warps][2][64] */
    float *of_queries;
    int cols; /* times 8, of a warp's dq */
    template <typename T>
    __device__ __forceinline__ grad_sums(const grad_memory<T> &m, int n_warps)
        : of_keys(reinterpret_cast<float *>(m.queries)),
          of_queries(of_keys + n_warps * 2 * MM_HEAD),
          cols(n_warps == 4 ? 4 : 2)
    {
    }
};

/** After a pass; keys and values are overwritten. */
template <int M, typename T>
__device__ __forceinline__ void
leave_sums(const grad_memory<T> &m, const float dq[MM_HEAD / 8],
           const float dk[M][MM_HEAD / 8][4], const float dv[M][MM_HEAD / 8][4],
           const grad_place &at)
{
    const int warp = (int)threadIdx.x / MM_WARP;
    const grad_sums sums(m, (int)blockDim.x / MM_WARP);
    mm_vec<float, 2> of_dk = {}, of_dv = {};
    if (at.mine < at.n_chunks) {
        const int at_key = at.mine * MM_CHUNK * mm_tile<T>::LD;
        of_dk = sum_rows<M>(reinterpret_cast<float *>(m.keys + at_key), dk);
        of_dv = sum_rows<M>(reinterpret_cast<float *>(m.values + at_key), dv);
    }
    float *to = sums.of_keys + warp * 2 * MM_HEAD + 2 * mm_lane();
    mm_store<2>(to, of_dk);
    mm_store<2>(to + MM_HEAD, of_dv);
#pragma unroll
    for (int k = 0; k < MM_HEAD / 8; k += 4)
        mm_store<4>(sums.of_queries + threadIdx.x * (MM_HEAD / 8) + k,
                    mm_vec<float, 4>{dq[k], dq[k + 1], dq[k + 2], dq[k + 3]});
}

/** Column `col` of the pass's sum of dq. */
__device__ __forceinline__ float sum_dq(const grad_sums &sums, int col)
{
    const int shares = MM_HEAD / 8 / sums.cols, share = col / (8 * sums.cols);
    const int in_share = col % (8 * sums.cols);
    const float *from = sums.of_queries + in_share / 8 * 2 + in_share % 2;
    float sum = 0.0f;
    for (int c = 0; c < QUERIES / MM_CHUNK; c++)
        for (int g = 0; g < 8; g++) {
            const int thread =
                (c * shares + share) * MM_WARP + 4 * g + in_share % 8 / 2;
            sum += from[thread * (MM_HEAD / 8)];
        }
    return sum;
}

/** Add what all warps have left to the image's sums, or begin them with it. */
template <typename T>
__device__ __forceinline__ void add_sums(const mm_attention_arguments<T> &a,
                                         const grad_memory<T> &m, int n_warps,
                                         bool accumulate)
{
    const grad_sums sums(m, n_warps);
    const int image = (int)blockIdx.x / a.n_heads;
    const int head = (int)blockIdx.x % a.n_heads;
    for (int i = (int)threadIdx.x; i < 3 * MM_HEAD; i += (int)blockDim.x) {
        float sum = 0.0f;
        if (i < MM_HEAD)
            sum = sum_dq(sums, i);
        else
            for (int warp = 0; warp < n_warps; warp++)
                sum += sums.of_keys[(warp * 2 - 1) * MM_HEAD + i];
        if (i < 2 * MM_HEAD)
            sum *= 1.0f / sqrtf((float)MM_HEAD);
        float *to =
            a.sums +
            (((int64_t)image * 3 + i / MM_HEAD) * a.n_heads + head) * MM_HEAD +
            i % MM_HEAD;
        *to = accumulate ? *to + sum : sum;
    }
}
} // namespace

#endif
