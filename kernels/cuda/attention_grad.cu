/* The gradient of attention: the choice of a kernel and of its blocks;
 * attention_grad.cuh has the kernel for heads of 64. */

#include "kernels/cuda/attention_grad.cuh"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

/** As divide() has it. */
template <typename T>
static size_t bytes_of(int n_tokens, int n_chunks, int chunks_per_pass)
{
    const size_t dq = n_chunks > chunks_per_pass
                          ? (size_t)n_chunks * MM_CHUNK * MM_HEAD * 4
                          : 0;
    const size_t elems =
        (size_t)chunks_per_pass * MM_CHUNK * (2 * mm_tile<T>::LD + DS_LD) +
        4 * grad_stage<T>::ELEMS;
    return dq + 2 * (size_t)padded(n_tokens) * 4 + elems * sizeof(T);
}

/** A plan for so many warps and bytes with the fewest, even passes; no warps in
 * it if a pass would hold fewer than `least` chunks. */
template <typename T>
static grad_plan plan_for(int n_tokens, int n_warps, int chunks_per_warp,
                          int64_t most_bytes, int least)
{
    const int n_chunks = (int)mm_ceil_div(n_tokens, MM_CHUNK);
    int most = (int)mm_min_i64(n_chunks, (int64_t)n_warps * chunks_per_warp);
    while (most > 0 &&
           (int64_t)bytes_of<T>(n_tokens, n_chunks, most) > most_bytes)
        most--;
    if (most < mm_min_i64(least, n_chunks))
        return {0, 0, 0, 0, 0};
    const int n_passes = (int)mm_ceil_div(n_chunks, most);
    const int per_pass = (int)mm_ceil_div(n_chunks, n_passes);
    return {n_warps, chunks_per_warp, per_pass, n_chunks,
            bytes_of<T>(n_tokens, n_chunks, per_pass)};
}

/* Blocks of four warps, two on a multiprocessor, one of which computes while
 * the other waits for memory; else one of eight. docs/gpu.md has the sizes. */
template <typename T>
static grad_plan make_plan(const mm_cuda_stream *cuda, int n_tokens)
{
    const int64_t reserved = 1024; /* of each block, by the system */
    const int64_t half = (cuda->shared_bytes + reserved) / 2 - reserved;
    const int n_chunks = (int)mm_ceil_div(n_tokens, MM_CHUNK);
    const int most_passes =
        cuda->variants.attention_grad == MM_ATTENTION_GRAD_ONE_PASS ? 1 : 2;
    if (n_chunks <= 4)
        return plan_for<T>(n_tokens, 4, 1, cuda->shared_bytes, 4);
    const grad_plan plan = plan_for<T>(n_tokens, 4, 2, half,
                                       (int)mm_ceil_div(n_chunks, most_passes));
    return plan.n_warps
               ? plan
               : plan_for<T>(n_tokens, MOST_WARPS, 2, cuda->shared_bytes, 4);
}

template <typename T>
static mm_status launch(mm_stream *stream, const mm_attention_arguments<T> &a,
                        const grad_plan &plan)
{
    const unsigned n_blocks = (unsigned)(a.n_images * a.n_heads);
    const unsigned n_threads = (unsigned)(plan.n_warps * MM_WARP);
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    if (plan.chunks_per_warp == 1) {
        MM_TRY(mm_allow_shared("attention_grad", mm_attention_grad_kernel<1, T>,
                               plan.n_bytes));
        MM_LAUNCH((mm_attention_grad_kernel<1, T>), n_blocks, n_threads,
                  plan.n_bytes, on, a, plan);
        return MM_OK;
    }
    MM_TRY(mm_allow_shared("attention_grad", mm_attention_grad_kernel<2, T>,
                           plan.n_bytes));
    MM_LAUNCH((mm_attention_grad_kernel<2, T>), n_blocks, n_threads,
              plan.n_bytes, on, a, plan);
    return MM_OK;
}

template <typename T>
static mm_status attention_grad(mm_stream *stream, mm_attention_arguments<T> a,
                                float *dbias, bool accumulate)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    const int64_t width = (int64_t)a.n_heads * a.head_width;
    const int64_t sum_bytes = a.n_images * 3 * width * (int64_t)sizeof(float);
    const bool fits = mm_attention_fits(stream, a);
    const grad_plan plan = make_plan<T>(cuda, a.n_tokens);
    if (!fits)
        MM_TRY(mm_attention_any_grad(stream, a));
    else if (plan.n_warps == 0)
        MM_TRY(mm_attention_long_grad(stream, a));
    else {
        if (dbias && cuda->variants.bias_sums == MM_BIAS_SUMS_FUSED &&
            sum_bytes <= MM_CUDA_PARTIAL_BYTES)
            a.sums = static_cast<float *>(cuda->partials);
        MM_TRY(launch(stream, a, plan));
    }
    if (a.sums)
        mm_add_partials(cuda->stream, dbias, a.sums, accumulate, a.n_images,
                        3 * width, 3 * width);
    else
        MM_TRY(mm_cuda_bias_grad(
            stream, dbias, reinterpret_cast<mm_act *>(a.dqkv), 3 * width,
            accumulate, (int64_t)a.n_images * a.n_tokens, 3 * width));
    return MM_CUDA(cudaGetLastError(),
                   "attention_grad of %d images, %d tokens, %d heads of %d",
                   a.n_images, a.n_tokens, a.n_heads, a.head_width);
}

mm_status mm_cuda_attention_grad(mm_stream *stream, mm_act *dqkv, float *dbias,
                                 const mm_act *dout, const mm_act *out,
                                 const float *lse, const mm_act *qkv,
                                 bool causal, bool accumulate, int64_t n_images,
                                 int64_t n_tokens, int64_t width,
                                 int64_t n_heads)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        MM_TRY(mm_attention_check<T>("attention_grad", stream, n_images,
                                     n_tokens, width, n_heads));
        if (n_images == 0 || n_tokens == 0 || width == 0)
            return mm_cuda_bias_grad(stream, dbias, dqkv, 3 * width, accumulate,
                                     0, 3 * width);
        MM_CUDA_REQUIRE("attention_grad", dqkv && dout && out && lse && qkv);
        /* out and lse are only read here. */
        const mm_attention_arguments<T> a = {const_cast<T *>(mm_as<T>(out)),
                                             const_cast<float *>(lse),
                                             mm_as<T>(qkv),
                                             mm_as<T>(dout),
                                             mm_as<T>(dqkv),
                                             causal,
                                             (int)n_images,
                                             (int)n_tokens,
                                             (int)n_heads,
                                             (int)(width / n_heads),
                                             nullptr};
        return attention_grad(stream, a, dbias, accumulate);
    });
}
