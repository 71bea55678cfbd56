/* The gradient of normalized_logits for the features. */

#include "kernels/cpu/product.h"

mm_status MM_CPU(normalized_logits_grad)(mm_stream *stream, float *dfeatures,
                                         const float *dlogits,
                                         const float *features,
                                         const float *inv_norm,
                                         const float *head, int64_t n_images,
                                         int64_t embed_dim, int64_t n_classes)
{
    MM_CPU_REQUIRE("normalized_logits_grad", stream && n_images >= 0);
    MM_CPU_REQUIRE("normalized_logits_grad", embed_dim > 0 && n_classes >= 0);
    if (n_images == 0)
        return MM_OK;
    MM_CPU_REQUIRE("normalized_logits_grad", dfeatures && features && inv_norm);
    MM_CPU_REQUIRE("normalized_logits_grad",
                   n_classes == 0 || (dlogits && head));
    mm_cpu_product p = {.m = n_images, .n = embed_dim, .k = n_classes};
    p.a = dlogits;
    p.a_row = n_classes;
    p.a_k = 1;
    p.b = head;
    p.b_k = embed_dim;
    p.b_col = 1;
    p.c = dfeatures;
    MM_CPU(product)(stream, &p);
    for (int64_t b = 0; b < n_images; b++) {
        const float *f = features + b * embed_dim;
        float *g = dfeatures + b * embed_dim;
        float inv = inv_norm[b];
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t e = 0; e < embed_dim; e++)
            dot += f[e] * inv * g[e];
#pragma omp simd
        for (int64_t e = 0; e < embed_dim; e++)
            g[e] = (g[e] - f[e] * inv * dot) * inv;
    }
    return MM_OK;
}
