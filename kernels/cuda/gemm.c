/* A general matrix product in fp32, by way of product.c. */

#include "kernels/cuda/product.h"

mm_status mm_cuda_gemm(mm_stream *stream, float *c, const float *a,
                       const float *b, bool transpose_a, bool transpose_b,
                       int64_t m, int64_t n, int64_t k, float beta)
{
    MM_CUDA_REQUIRE("gemm", stream && m >= 0 && n >= 0 && k >= 0);
    MM_CUDA_REQUIRE("gemm", beta == 0.0f || beta == 1.0f);
    MM_CUDA_REQUIRE("gemm", m == 0 || n == 0 || (c && (k == 0 || (a && b))));
    const mm_cuda_product p = {.m = m,
                               .n = n,
                               .k = k,
                               .a = a,
                               .b = b,
                               .transpose_a = transpose_a,
                               .transpose_b = transpose_b,
                               .type = CUDA_R_32F,
                               .out = CUDA_R_32F,
                               .c = c,
                               .addend = beta == 1.0f ? c : NULL};
    return mm_cuda_multiply(stream, &p);
}
