#include "kernels/cuda/reduce.cuh"

namespace
{
struct loss_arguments {
    double *partials;
    float *dlogits;
    const float *logits;
    const int32_t *labels;
    mm_cuda_fault *fault;
    float smoothing, grad_scale;
    int64_t n_images, n_classes;
};

/** The first bad label; a later one does not replace it. */
__device__ void report_label(const loss_arguments &a, int64_t b)
{
    if (atomicCAS(&a.fault->kind, 0, (int)MM_CUDA_BAD_LABEL) != 0)
        return;
    a.fault->label = a.labels[b];
    a.fault->image = b;
    a.fault->n_classes = a.n_classes;
}

/** One warp, one image that has no loss. */
__device__ double no_loss(float *dlogits, int64_t n_classes)
{
    for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP)
        dlogits[c] = nanf("");
    return nan("");
}

/** One warp, one image; -log p_c = lse - logit_c. The loss is in every lane. */
__device__ double row_loss(const loss_arguments &a, int64_t b)
{
    const float *logits = a.logits + b * a.n_classes;
    float *dlogits = a.dlogits + b * a.n_classes;
    const int32_t label = a.labels[b];
    if (label < 0 || label >= a.n_classes) {
        if (mm_lane() == 0)
            report_label(a, b);
        return no_loss(dlogits, a.n_classes);
    }
    float max = logits[0];
    for (int64_t c = mm_lane(); c < a.n_classes; c += MM_WARP)
        max = fmaxf(max, logits[c]);
    max = mm_warp_max(max);
    double sum_logits = 0.0, sum_exp = 0.0;
    for (int64_t c = mm_lane(); c < a.n_classes; c += MM_WARP) {
        sum_exp += (double)expf(logits[c] - max);
        sum_logits += (double)logits[c];
    }
    sum_exp = mm_warp_sum(sum_exp);
    sum_logits = mm_warp_sum(sum_logits);
    const double lse = (double)max + log(sum_exp);
    const float inv_sum = (float)(1.0 / sum_exp);
    const float uniform = a.smoothing / (float)a.n_classes;
    const double of_label = lse - (double)logits[label];
    const double of_mean = lse - sum_logits / (double)a.n_classes;
    const double loss =
        (1.0 - (double)a.smoothing) * of_label + (double)a.smoothing * of_mean;
    if (!isfinite(loss))
        return no_loss(dlogits, a.n_classes);
    for (int64_t c = mm_lane(); c < a.n_classes; c += MM_WARP) {
        float d = a.grad_scale * (expf(logits[c] - max) * inv_sum - uniform);
        if (c == label)
            d -= a.grad_scale * (1.0f - a.smoothing);
        dlogits[c] = d;
    }
    return loss;
}
} // namespace

__global__ void __launch_bounds__(MM_REDUCE_THREADS)
    mm_softmax_cross_entropy_kernel(loss_arguments a)
{
    const int64_t step = (int64_t)gridDim.x * (MM_REDUCE_THREADS / MM_WARP);
    int64_t b = (int64_t)blockIdx.x * (MM_REDUCE_THREADS / MM_WARP) +
                threadIdx.x / MM_WARP;
    double sum = 0.0;
    for (; b < a.n_images; b += step)
        sum += row_loss(a, b);
    const double all = mm_block_sum(mm_lane() == 0 ? sum : 0.0);
    if (threadIdx.x == 0)
        a.partials[blockIdx.x] = all;
}

mm_status mm_cuda_softmax_cross_entropy(mm_stream *stream, double *loss_sum,
                                        float *dlogits, const float *logits,
                                        const int32_t *labels, float smoothing,
                                        float grad_scale, int64_t n_images,
                                        int64_t n_classes)
{
    MM_CUDA_REQUIRE("softmax_cross_entropy", stream && loss_sum);
    MM_CUDA_REQUIRE("softmax_cross_entropy", n_images >= 0);
    MM_CUDA_REQUIRE("softmax_cross_entropy",
                    n_images == 0 ||
                        (dlogits && logits && labels && n_classes > 0));
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    double *partials = static_cast<double *>(cuda->partials);
    const int n_blocks = (int)mm_min_i64(
        MM_REDUCE_BLOCKS, mm_ceil_div(n_images, MM_REDUCE_THREADS / MM_WARP));
    const loss_arguments a = {partials,   dlogits,     logits,
                              labels,     cuda->fault, smoothing,
                              grad_scale, n_images,    n_classes};
    if (n_blocks > 0)
        MM_LAUNCH(mm_softmax_cross_entropy_kernel, (unsigned)n_blocks,
                  MM_REDUCE_THREADS, 0, cuda->stream, a);
    MM_LAUNCH((mm_sum_partials_kernel<double>), 1, MM_REDUCE_THREADS, 0,
              cuda->stream, loss_sum, partials, n_blocks);
    return MM_CUDA(cudaGetLastError(),
                   "softmax_cross_entropy of %lld images, %lld classes",
                   (long long)n_images, (long long)n_classes);
}
