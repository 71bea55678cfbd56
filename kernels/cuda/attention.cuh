#ifndef MAGMAX_KERNELS_CUDA_ATTENTION_CUH
#define MAGMAX_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Attention in two ways: on tensor cores for heads of 64 (attention.cu,
 * attention_grad.cu and, where its sums outgrow shared memory,
 * attention_grad_long.cu), and in plain fp32 for heads of up to 256
 * (attention_any.cu). None stores the T x T scores: a block keeps a tile of
 * rows and walks over tiles of columns.
 */

enum { MM_HEAD = 64, MM_MOST_HEAD = 256 };

/** exp(x) = exp2(x * this). */
#define MM_LOG2_E 1.4426950408889634f

/** Arguments of the ops; of the forward pass out and lse are written. */
template <typename T> struct mm_attention_arguments {
    T *out;
    float *lse;
    const T *qkv;
    const T *dout; /* gradient only */
    T *dqkv;
    bool causal;
    int n_images, n_tokens, n_heads, head_width;
    float *sums; /* [n_images, 3 width]: dqkv summed over tokens; NULL: not */
};

/** Where one head of one image lies. */
template <typename T> struct mm_head_view {
    const T *q, *k, *v, *out, *dout;
    float *lse;
    T *to_out, *dq, *dk, *dv;
    int64_t qkv_ld, out_ld;
};

template <typename T>
__device__ __forceinline__ mm_head_view<T>
mm_view_head(const mm_attention_arguments<T> &a, int64_t image, int head)
{
    mm_head_view<T> h;
    const int64_t width = (int64_t)a.n_heads * a.head_width;
    const int64_t token = image * a.n_tokens;
    const int64_t col = (int64_t)head * a.head_width;
    h.qkv_ld = 3 * width;
    h.out_ld = width;
    h.q = a.qkv + token * h.qkv_ld + col;
    h.k = h.q + width;
    h.v = h.k + width;
    h.to_out = a.out + token * width + col;
    h.out = h.to_out;
    h.dout = a.dout + token * width + col;
    h.lse = a.lse ? a.lse + (image * a.n_heads + head) * a.n_tokens : nullptr;
    h.dq = a.dqkv + token * h.qkv_ld + col;
    h.dk = h.dq + width;
    h.dv = h.dk + width;
    return h;
}

/** Does query i see key j? */
__device__ __forceinline__ bool mm_sees(bool causal, int n_tokens, int i, int j)
{
    return i < n_tokens && j < n_tokens && (!causal || j <= i);
}

template <typename T>
mm_status mm_attention_check(const char *op, const mm_stream *stream,
                             int64_t n_images, int64_t n_tokens, int64_t width,
                             int64_t n_heads)
{
    MM_CUDA_REQUIRE(op, stream && n_images >= 0 && n_tokens >= 0);
    MM_CUDA_REQUIRE(op, width >= 0 && n_heads > 0 && width % n_heads == 0);
    MM_CUDA_REQUIRE(op, n_images <= INT32_MAX / n_heads);
    MM_CUDA_REQUIRE(op, n_tokens < INT32_MAX / 2);
    MM_CUDA_REQUIRE(op, width <= INT32_MAX / 256); /* strides of rows */
    return MM_OK;
}

/** Can the tensor cores take it? Exact fp32 they cannot. */
template <typename T>
bool mm_attention_fits(const mm_stream *stream,
                       const mm_attention_arguments<T> &a)
{
    const mm_cuda_stream *cuda =
        mm_cuda_stream_of(const_cast<mm_stream *>(stream));
    const bool exact = sizeof(T) == 4 && cuda->precision == MM_CUDA_FP32;
    return !exact && a.head_width == MM_HEAD &&
           mm_fits<mm_wide<T>>(a.out, a.qkv, a.dout, a.dqkv);
}

/** The general path; attention_any.cu. */
template <typename T>
mm_status mm_attention_any(mm_stream *stream,
                           const mm_attention_arguments<T> &a);
template <typename T>
mm_status mm_attention_any_grad(mm_stream *stream,
                                const mm_attention_arguments<T> &a);

/** The gradient in two passes over the scores; attention_grad_long.cu. */
template <typename T>
mm_status mm_attention_long_grad(mm_stream *stream,
                                 const mm_attention_arguments<T> &a);

#endif
