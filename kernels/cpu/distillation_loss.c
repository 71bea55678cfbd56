/* The loss of Learning without Forgetting and its gradient, one row of logits
 * at a time. */

#include "kernels/cpu/elementary.h"
#include "kernels/cpu/flat.h"

#include <math.h>

/* Keeps the student's probabilities away from 0, shared by the classes. */
static const float floor_of_all = 1e-5f;

/* A row's probabilities: exp((logit - max) * sharpness) * inv_sum. */
typedef struct softmax {
    float max, sharpness, inv_sum;
} softmax;

static softmax softmax_of(const float *logits, float sharpness,
                          int64_t n_classes)
{
    softmax s = {logits[0], sharpness, 0.0f};
    float max = logits[0];
    double sum = 0.0;
#pragma omp simd reduction(max : max)
    for (int64_t c = 0; c < n_classes; c++)
        max = logits[c] > max ? logits[c] : max;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n_classes; c++)
        sum += (double)mm_exp((logits[c] - max) * sharpness);
    s.max = max;
    s.inv_sum = (float)(1.0 / sum);
    return s;
}

static inline float probability(const softmax *s, float logit)
{
    return mm_exp((logit - s->max) * s->sharpness) * s->inv_sum;
}

typedef struct distillation {
    float *dlogits;
    const float *logits, *old_logits;
    int64_t stride, n_classes;
    float sharpness, grad_scale;
    bool accumulate;
} distillation;

/* With p the student's softmax, q = p + eps and r = t / q:
 * d loss / d logit = sharpness p (sum of r p - r). */
static double row_loss(const distillation *a, int64_t b)
{
    const float *logits = a->logits + b * a->stride;
    const float *old_logits = a->old_logits + b * a->n_classes;
    float *dlogits = a->dlogits + b * a->stride;
    const softmax student = softmax_of(logits, a->sharpness, a->n_classes);
    const softmax teacher = softmax_of(old_logits, a->sharpness, a->n_classes);
    const float eps = floor_of_all / (float)a->n_classes;
    double loss = 0.0, mean = 0.0;
    for (int64_t c = 0; c < a->n_classes; c++) {
        float p = probability(&student, logits[c]);
        float t = probability(&teacher, old_logits[c]);
        loss -= (double)t * log((double)p + (double)eps);
        mean += (double)(t / (p + eps) * p);
    }
    const float scale = a->grad_scale * a->sharpness, keep = a->accumulate;
#pragma omp simd
    for (int64_t c = 0; c < a->n_classes; c++) {
        float p = probability(&student, logits[c]);
        float t = probability(&teacher, old_logits[c]);
        float d = scale * p * ((float)mean - t / (p + eps));
        dlogits[c] = keep > 0.0f ? dlogits[c] + d : d;
    }
    return loss + log1p((double)floor_of_all);
}

mm_status MM_CPU(distillation_loss)(mm_stream *stream, double *loss_sum,
                                    float *dlogits, const float *logits,
                                    int64_t stride, const float *old_logits,
                                    float temperature, float grad_scale,
                                    bool accumulate, int64_t n_images,
                                    int64_t n_classes)
{
    MM_CPU_REQUIRE("distillation_loss", stream && loss_sum && n_images >= 0);
    *loss_sum = 0.0;
    if (n_images == 0)
        return MM_OK;
    MM_CPU_REQUIRE("distillation_loss", dlogits && logits && old_logits);
    MM_CPU_REQUIRE("distillation_loss", n_classes > 0 && stride >= n_classes);
    MM_CPU_REQUIRE("distillation_loss", temperature > 0.0f);
    const distillation a = {dlogits,    logits,    old_logits,
                            stride,     n_classes, 1.0f / temperature,
                            grad_scale, accumulate};
    MM_CPU_SUM(stream, loss_sum, n_images, n_classes, lo, hi, total, {
        for (int64_t b = lo; b < hi; b++)
            total += row_loss(&a, b);
    });
    return MM_OK;
}
