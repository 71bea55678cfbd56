/* The loss of Learning without Forgetting and its gradient, one warp per row of
 * logits. */

#include "kernels/cuda/reduce.cuh"

namespace
{
/* Keeps the student's probabilities away from 0, shared by the classes. */
constexpr float floor_of_all = 1e-5f;

/** A row's probabilities: exp((logit - max) * sharpness) * inv_sum. */
struct softmax {
    float max, sharpness, inv_sum;

    __device__ softmax(const float *z, float sharp, int64_t n_classes)
        : max(z[0]), sharpness(sharp)
    {
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP)
            max = fmaxf(max, z[c]);
        max = mm_warp_max(max);
        double sum = 0.0;
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP)
            sum += (double)expf((z[c] - max) * sharpness);
        inv_sum = (float)(1.0 / mm_warp_sum(sum));
    }

    __device__ float operator()(float z) const
    {
        return expf((z - max) * sharpness) * inv_sum;
    }
};

struct distillation {
    float *dlogits;
    const float *logits, *old_logits;
    int64_t stride, n_classes;
    float sharpness, grad_scale;
    bool accumulate;

    /** With p the student's softmax, q = p + eps and r = t / q:
     * d loss / d logit = sharpness p (sum of r p - r). */
    __device__ double row(int64_t b) const
    {
        const float *z = logits + b * stride;
        const float *old_z = old_logits + b * n_classes;
        float *dz = dlogits + b * stride;
        const softmax student(z, sharpness, n_classes);
        const softmax teacher(old_z, sharpness, n_classes);
        const float eps = floor_of_all / (float)n_classes;
        double loss = 0.0, mean = 0.0;
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP) {
            const float p = student(z[c]), t = teacher(old_z[c]);
            loss -= (double)t * log((double)p + (double)eps);
            mean += (double)(t / (p + eps) * p);
        }
        loss = mm_warp_sum(loss);
        mean = mm_warp_sum(mean);
        const float scale = grad_scale * sharpness;
        for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP) {
            const float p = student(z[c]), t = teacher(old_z[c]);
            const float d = scale * p * ((float)mean - t / (p + eps));
            dz[c] = accumulate ? dz[c] + d : d;
        }
        return loss + log1p((double)floor_of_all);
    }
};
} // namespace

mm_status mm_cuda_distillation_loss(mm_stream *stream, double *loss_sum,
                                    float *dlogits, const float *logits,
                                    int64_t stride, const float *old_logits,
                                    float temperature, float grad_scale,
                                    bool accumulate, int64_t n_images,
                                    int64_t n_classes)
{
    MM_CUDA_REQUIRE("distillation_loss", stream && loss_sum && n_images >= 0);
    if (n_images > 0) {
        MM_CUDA_REQUIRE("distillation_loss", dlogits && logits && old_logits);
        MM_CUDA_REQUIRE("distillation_loss",
                        n_classes > 0 && stride >= n_classes);
        MM_CUDA_REQUIRE("distillation_loss", temperature > 0.0f);
    }
    const distillation f = {dlogits,    logits,    old_logits,
                            stride,     n_classes, 1.0f / temperature,
                            grad_scale, accumulate};
    return mm_row_sum(stream, "distillation_loss", loss_sum, f, n_images);
}
