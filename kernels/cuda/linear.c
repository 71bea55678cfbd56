#include "kernels/cuda/product.h"

static mm_cuda_product forward(float *y, const float *x, const float *w,
                               const float *bias, int64_t n_rows, int64_t n_in,
                               int64_t n_out)
{
    mm_cuda_product p = {.m = n_rows, .n = n_out, .k = n_in};
    p.a = x;
    p.b = w;
    p.transpose_b = true;
    p.type = CUDA_R_32F;
    p.out = CUDA_R_32F;
    p.c = y;
    p.bias = bias;
    return p;
}

mm_status mm_cuda_linear(mm_stream *stream, float *y, const float *x,
                         const float *w, const float *bias,
                         const float *residual, int64_t n_rows, int64_t n_in,
                         int64_t n_out)
{
    MM_CUDA_REQUIRE("linear", stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CUDA_REQUIRE("linear", n_rows == 0 || (y && x && w));
    mm_cuda_product p = forward(y, x, w, bias, n_rows, n_in, n_out);
    p.addend = residual;
    return mm_cuda_multiply(stream, &p);
}

/* The library's GELU epilogue is the tanh approximation, CLIP's is the erf
 * form: the activation is a kernel of its own. */
mm_status mm_cuda_linear_act(mm_stream *stream, float *y, float *pre,
                             const float *x, const float *w, const float *bias,
                             mm_activation activation, int64_t n_rows,
                             int64_t n_in, int64_t n_out)
{
    MM_CUDA_REQUIRE("linear_act",
                    stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CUDA_REQUIRE("linear_act", n_rows == 0 || (y && x && w));
    float *sums = pre ? pre : y;
    const mm_cuda_product p = forward(sums, x, w, bias, n_rows, n_in, n_out);
    MM_TRY(mm_cuda_multiply(stream, &p));
    return mm_cuda_activate(stream, y, sums, activation, n_rows * n_out);
}
