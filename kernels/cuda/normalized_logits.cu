/* Logits of normalised features: a product with the head, divided by each
 * feature vector's length. */

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/product.h"

/* One warp per row: 1 / |f|, and the row's logits times that. */
__global__ void mm_normalize_logits_kernel(float *logits, float *inv_norm,
                                           const float *features,
                                           int64_t n_images, int64_t embed_dim,
                                           int64_t n_classes)
{
    const int64_t b = mm_warp_row();
    if (b >= n_images)
        return;
    float squares = 0.0f;
    for (int64_t e = mm_lane(); e < embed_dim; e += MM_WARP) {
        const float f = features[b * embed_dim + e];
        squares += f * f;
    }
    const float inv = 1.0f / sqrtf(mm_warp_sum(squares));
    if (mm_lane() == 0)
        inv_norm[b] = inv;
    for (int64_t c = mm_lane(); c < n_classes; c += MM_WARP)
        logits[b * n_classes + c] *= inv;
}

mm_status mm_cuda_normalized_logits(mm_stream *stream, float *logits,
                                    float *inv_norm, const float *features,
                                    const float *head, int64_t n_images,
                                    int64_t embed_dim, int64_t n_classes)
{
    MM_CUDA_REQUIRE("normalized_logits", stream && n_images >= 0);
    MM_CUDA_REQUIRE("normalized_logits", embed_dim > 0 && n_classes >= 0);
    if (n_images == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("normalized_logits", inv_norm && features);
    MM_CUDA_REQUIRE("normalized_logits", n_classes == 0 || (logits && head));
    MM_TRY(mm_cuda_gemm(stream, logits, features, head, false, true, n_images,
                        n_classes, embed_dim, 0.0f));
    MM_LAUNCH(mm_normalize_logits_kernel,
              mm_blocks(n_images, MM_ROWS_PER_BLOCK),
              MM_ROWS_PER_BLOCK * MM_WARP, 0, mm_cuda_stream_of(stream)->stream,
              logits, inv_norm, features, n_images, embed_dim, n_classes);
    return MM_CUDA(cudaGetLastError(),
                   "normalized_logits of %lld images, %lld classes",
                   (long long)n_images, (long long)n_classes);
}
