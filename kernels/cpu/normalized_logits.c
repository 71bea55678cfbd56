/* Logits of normalised features: a product with the head, divided by each
 * feature vector's length. */

#include "kernels/cpu/product.h"

#include <math.h>

mm_status MM_CPU(normalized_logits)(mm_stream *stream, float *logits,
                                    float *inv_norm, const float *features,
                                    const float *head, int64_t n_images,
                                    int64_t embed_dim, int64_t n_classes)
{
    MM_CPU_REQUIRE("normalized_logits", stream && n_images >= 0);
    MM_CPU_REQUIRE("normalized_logits", embed_dim > 0 && n_classes >= 0);
    if (n_images == 0)
        return MM_OK;
    MM_CPU_REQUIRE("normalized_logits", inv_norm && features);
    MM_CPU_REQUIRE("normalized_logits", n_classes == 0 || (logits && head));
    mm_cpu_product p = {.m = n_images, .n = n_classes, .k = embed_dim};
    p.a = features;
    p.a_row = embed_dim;
    p.a_k = 1;
    p.b = head;
    p.b_k = 1;
    p.b_col = embed_dim;
    p.c = logits;
    MM_CPU(product)(stream, &p);
    for (int64_t b = 0; b < n_images; b++) {
        const float *f = features + b * embed_dim;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (int64_t e = 0; e < embed_dim; e++)
            squares += f[e] * f[e];
        float inv = 1.0f / sqrtf(squares);
        inv_norm[b] = inv;
        for (int64_t c = 0; c < n_classes; c++)
            logits[b * n_classes + c] *= inv;
    }
    return MM_OK;
}
