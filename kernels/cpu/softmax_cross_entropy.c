/* Cross-entropy with label smoothing and its gradient, one row of logits at a
 * time. */

#include "kernels/cpu/elementary.h"
#include "kernels/cpu/flat.h"

#include <math.h>

/* -log p_c = lse - logit_c. */
static double row_loss(float *dlogits, const float *logits, int32_t label,
                       float smoothing, float grad_scale, int64_t n_classes)
{
    float max = logits[0];
    double sum_logits = 0.0, sum_exp = 0.0;
#pragma omp simd reduction(max : max)
    for (int64_t c = 0; c < n_classes; c++)
        max = logits[c] > max ? logits[c] : max;
#pragma omp simd reduction(+ : sum_logits, sum_exp)
    for (int64_t c = 0; c < n_classes; c++) {
        float e = mm_exp(logits[c] - max);
        dlogits[c] = e;
        sum_exp += (double)e;
        sum_logits += (double)logits[c];
    }
    double lse = (double)max + log(sum_exp);
    float inv_sum = (float)(1.0 / sum_exp);
    float uniform = smoothing / (float)n_classes;
#pragma omp simd
    for (int64_t c = 0; c < n_classes; c++)
        dlogits[c] = grad_scale * (dlogits[c] * inv_sum - uniform);
    dlogits[label] -= grad_scale * (1.0f - smoothing);
    double of_label = lse - (double)logits[label];
    double of_mean = lse - sum_logits / (double)n_classes;
    double loss =
        (1.0 - (double)smoothing) * of_label + (double)smoothing * of_mean;
    if (!isfinite(loss))
        dlogits[label] = NAN;
    return loss;
}

mm_status MM_CPU(softmax_cross_entropy)(mm_stream *stream, double *loss_sum,
                                        float *dlogits, const float *logits,
                                        const int32_t *labels, float smoothing,
                                        float grad_scale, int64_t n_images,
                                        int64_t n_classes)
{
    MM_CPU_REQUIRE("softmax_cross_entropy", stream && loss_sum);
    MM_CPU_REQUIRE("softmax_cross_entropy", n_images >= 0);
    *loss_sum = 0.0;
    if (n_images == 0)
        return MM_OK;
    MM_CPU_REQUIRE("softmax_cross_entropy", dlogits && logits && labels);
    MM_CPU_REQUIRE("softmax_cross_entropy", n_classes > 0);
    for (int64_t b = 0; b < n_images; b++)
        if (labels[b] < 0 || labels[b] >= n_classes)
            return mm_fail(MM_E_ARG,
                           "label %d of image %lld is not one of %lld "
                           "classes",
                           (int)labels[b], (long long)b, (long long)n_classes);
    MM_CPU_SUM(stream, loss_sum, n_images, n_classes, lo, hi, total, {
        for (int64_t b = lo; b < hi; b++)
            total += row_loss(dlogits + b * n_classes, logits + b * n_classes,
                              labels[b], smoothing, grad_scale, n_classes);
    });
    return MM_OK;
}
