/* Pillow's bicubic weights for one direction of a resize, exact and in fixed
 * point. */

#include "src/image/resample_axis.h"

#include <math.h>
#include <stdlib.h>

void mm_axis_clear(mm_axis *axis)
{
    free(axis->taps);
    free(axis->exact);
    free(axis->weights);
    free(axis->pairs);
    *axis = (mm_axis){0};
}

static mm_status reserve(mm_axis *a, int64_t n_taps, int64_t n_weights)
{
    if (n_taps <= a->taps_held && n_weights <= a->weights_held)
        return MM_OK;
    mm_axis_clear(a);
    a->taps = malloc((size_t)n_taps * sizeof *a->taps);
    a->exact = malloc((size_t)n_weights * sizeof *a->exact);
    a->weights = malloc((size_t)n_weights * sizeof *a->weights);
    a->pairs = malloc((size_t)n_weights / 2 * sizeof *a->pairs);
    if (!a->taps || !a->exact || !a->weights || !a->pairs) {
        mm_axis_clear(a);
        return mm_fail(MM_E_MEMORY,
                       "no memory for %lld weights to resize an image",
                       (long long)n_weights);
    }
    a->taps_held = n_taps;
    a->weights_held = n_weights;
    return MM_OK;
}

/** Cubic convolution with a = -0.5 (Keys 1981), in Pillow's grouping. */
static double bicubic(double x)
{
    const double a = -0.5;
    if (x < 0.0)
        x = -x;
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static int32_t fixed_point(double weight)
{
    double scaled = weight * (1 << MM_WEIGHT_BITS);
    return (int32_t)(weight < 0 ? -0.5 + scaled : 0.5 + scaled);
}

static mm_tap_pair split(int32_t first, int32_t second)
{
    mm_tap_pair pair;
    const int32_t weights[2] = {first, second};
    for (int i = 0; i < 2; i++) {
        int32_t upper = (weights[i] + (1 << 15)) >> 16;
        pair.upper[i] = pair.upper[i + 2] = (int8_t)upper;
        pair.lower[i] = (int16_t)(weights[i] - upper * (1 << 16));
    }
    /* A weight is below 1.2, two together are too: with bytes the products'
     * sum has 16 bits. */
    MM_ASSERT(pair.upper[0] + pair.upper[1] <= 128 && first < 1 << 23);
    return pair;
}

/** The weights of one output, from its exact ones. */
static void round_weights(const double *exact, int64_t n, int64_t stride,
                          int32_t *weights, mm_tap_pair *pairs)
{
    MM_ASSERT(n >= 1 && n <= stride && stride >= 2);
    for (int64_t tap = 0; tap < n; tap++)
        weights[tap] = fixed_point(exact[tap]);
    for (int64_t tap = n; tap < stride; tap++)
        weights[tap] = 0;
    for (int64_t tap = 0; tap + 1 < stride; tap += 2) /* stride is even */
        pairs[tap / 2] = split(weights[tap], weights[tap + 1]);
}

mm_status mm_axis_set(mm_axis *a, int64_t n_in, int64_t n_out, int64_t lo,
                      int64_t n)
{
    if (a->n_in == n_in && a->n_out == n_out && a->lo == lo && a->n == n)
        return MM_OK;
    MM_ASSERT(n >= 1);
    double scale = (double)n_in / (double)n_out;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * filter_scale, inverse = 1.0 / filter_scale;
    int64_t stride = (int64_t)ceil(support) * 2 + 2;

    MM_TRY(reserve(a, n, n * stride));
    for (int64_t i = 0; i < n; i++) {
        double center = ((double)(lo + i) + 0.5) * scale;
        int64_t first = (int64_t)(center - support + 0.5);
        int64_t end = (int64_t)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > n_in ? n_in : end;
        double *exact = a->exact + i * stride, sum = 0.0;
        for (int64_t tap = 0; tap < end - first; tap++) {
            exact[tap] =
                bicubic(((double)(tap + first) - center + 0.5) * inverse);
            sum += exact[tap];
        }
        for (int64_t tap = 0; tap < end - first && sum != 0.0; tap++)
            exact[tap] /= sum;
        round_weights(exact, end - first, stride, a->weights + i * stride,
                      a->pairs + i * stride / 2);
        a->taps[i] = (mm_taps){first, end - first};
    }
    a->n_in = n_in;
    a->n_out = n_out;
    a->lo = lo;
    a->n = n;
    a->stride = stride;
    a->from = a->taps[0].first;
    a->to = a->taps[n - 1].first + a->taps[n - 1].n;
    return MM_OK;
}
