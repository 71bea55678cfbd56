/* Cross-entropy with label smoothing and its gradient, one warp per row of
 * logits; bad labels are reported to the host. */

#include "kernels/cuda/reduce.cuh"

namespace
{
struct cross_entropy {
    float *dlogits;
    const float *logits;
    const int32_t *labels;
    mm_cuda_fault *fault;
    float smoothing, grad_scale;
    int64_t n_classes;

    /** The first bad label; a later one does not replace it. */
    __device__ void report_label(int64_t b) const
    {
        if (atomicCAS(&fault->kind, 0, (int)MM_CUDA_BAD_LABEL) != 0)
            return;
        fault->label = labels[b];
        fault->image = b;
        fault->n_classes = n_classes;
    }

    /** Of an image that has no loss. */
    __device__ double no_row(float *dz) const
    {
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP)
            dz[c] = nanf("");
        return nan("");
    }

    /** The loss of an image, -log p_c = lse - logit_c, and its gradient. */
    __device__ double row(int64_t b) const
    {
        const float *z = logits + b * n_classes;
        float *dz = dlogits + b * n_classes;
        const int32_t label = labels[b];
        if (label < 0 || label >= n_classes) {
            if (mm_lane() == 0)
                report_label(b);
            return no_row(dz);
        }
        float max = z[0];
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP)
            max = fmaxf(max, z[c]);
        max = mm_warp_max(max);
        double sum_logits = 0.0, sum_exp = 0.0;
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP) {
            sum_exp += (double)expf(z[c] - max);
            sum_logits += (double)z[c];
        }
        sum_exp = mm_warp_sum(sum_exp);
        sum_logits = mm_warp_sum(sum_logits);
        const double lse = (double)max + log(sum_exp);
        const float inv_sum = (float)(1.0 / sum_exp);
        const float uniform = smoothing / (float)n_classes;
        const double of_label = lse - (double)z[label];
        const double of_mean = lse - sum_logits / (double)n_classes;
        const double loss =
            (1.0 - (double)smoothing) * of_label + (double)smoothing * of_mean;
        if (!isfinite(loss))
            return no_row(dz);
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP) {
            float d = grad_scale * (expf(z[c] - max) * inv_sum - uniform);
            if (c == label)
                d -= grad_scale * (1.0f - smoothing);
            dz[c] = d;
        }
        return loss;
    }
};
} // namespace

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
    const cross_entropy f = {
        dlogits,   logits,     labels,   mm_cuda_stream_of(stream)->fault,
        smoothing, grad_scale, n_classes};
    return mm_row_sum(stream, "softmax_cross_entropy", loss_sum, f, n_images);
}
