/* The gradient of normalized_logits for the features. */

#include "kernels/cuda/launch.cuh"

/* One warp per row: g becomes (g - u (u.g)) / |f|, u = f / |f|. */
__global__ void mm_normalize_grad_kernel(float *g, const float *features,
                                         const float *inv_norm,
                                         int64_t n_images, int64_t embed_dim)
{
    const int64_t b = mm_warp_row();
    if (b >= n_images)
        return;
    const float *f = features + b * embed_dim;
    const float inv = inv_norm[b];
    g += b * embed_dim;
    float dot = 0.0f;
    for (int64_t e = mm_lane(); e < embed_dim; e += MM_WARP)
        dot += f[e] * inv * g[e];
    dot = mm_warp_sum(dot);
    for (int64_t e = mm_lane(); e < embed_dim; e += MM_WARP)
        g[e] = (g[e] - f[e] * inv * dot) * inv;
}

mm_status mm_cuda_normalized_logits_grad(mm_stream *stream, float *dfeatures,
                                         const float *dlogits,
                                         const float *features,
                                         const float *inv_norm,
                                         const float *head, int64_t n_images,
                                         int64_t embed_dim, int64_t n_classes)
{
    MM_CUDA_REQUIRE("normalized_logits_grad", stream && n_images >= 0);
    MM_CUDA_REQUIRE("normalized_logits_grad", embed_dim > 0 && n_classes >= 0);
    if (n_images == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("normalized_logits_grad",
                    dfeatures && features && inv_norm);
    MM_CUDA_REQUIRE("normalized_logits_grad",
                    n_classes == 0 || (dlogits && head));
    MM_TRY(mm_cuda_gemm(stream, dfeatures, dlogits, head, false, false,
                        n_images, embed_dim, n_classes, 0.0f));
    MM_LAUNCH(mm_normalize_grad_kernel, mm_blocks(n_images, MM_ROWS_PER_BLOCK),
              MM_ROWS_PER_BLOCK * MM_WARP, 0, mm_cuda_stream_of(stream)->stream,
              dfeatures, features, inv_norm, n_images, embed_dim);
    return MM_CUDA(cudaGetLastError(),
                   "normalized_logits_grad of %lld images of %lld",
                   (long long)n_images, (long long)embed_dim);
}
