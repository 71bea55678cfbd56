/* A general matrix product in fp32, by way of product.c. */

#include "kernels/cpu/product.h"

mm_status MM_CPU(gemm)(mm_stream *stream, float *c, const float *a,
                       const float *b, bool transpose_a, bool transpose_b,
                       int64_t m, int64_t n, int64_t k, float beta)
{
    MM_CPU_REQUIRE("gemm", stream && m >= 0 && n >= 0 && k >= 0);
    MM_CPU_REQUIRE("gemm", beta == 0.0f || beta == 1.0f);
    MM_CPU_REQUIRE("gemm", m == 0 || n == 0 || (c && (k == 0 || (a && b))));
    mm_cpu_product p = {.m = m, .n = n, .k = k, .a = a, .b = b, .c = c};
    p.a_row = transpose_a ? 1 : k;
    p.a_k = transpose_a ? m : 1;
    p.b_k = transpose_b ? 1 : n;
    p.b_col = transpose_b ? k : 1;
    p.accumulate = beta == 1.0f;
    return MM_CPU(product)(stream, &p);
}
