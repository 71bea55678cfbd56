/* Linear layers, with and without an activation, by way of product.c. */

#include "kernels/cuda/product.h"

static mm_cuda_product forward(const mm_stream *stream, mm_act *y,
                               const mm_act *x, const mm_act *w,
                               const mm_act *bias, int64_t n_rows, int64_t n_in,
                               int64_t n_out)
{
    mm_cuda_product p =
        mm_cuda_product_forward(mm_cuda_act_type(stream), n_rows, n_in, n_out);
    p.a = x;
    p.b = w;
    p.c = y;
    p.bias = bias;
    return p;
}

mm_status mm_cuda_linear(mm_stream *stream, mm_act *y, const mm_act *x,
                         const mm_act *w, const mm_act *bias,
                         const mm_act *residual, int64_t n_rows, int64_t n_in,
                         int64_t n_out)
{
    MM_CUDA_REQUIRE("linear", stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CUDA_REQUIRE("linear", n_rows == 0 || (y && x && w));
    mm_cuda_product p = forward(stream, y, x, w, bias, n_rows, n_in, n_out);
    p.addend = residual;
    return mm_cuda_multiply(stream, &p);
}

/* The library's GELU epilogue is the tanh approximation, CLIP's is the erf
 * form: the activation is a kernel of its own. */
mm_status mm_cuda_linear_act(mm_stream *stream, mm_act *y, mm_act *pre,
                             const mm_act *x, const mm_act *w,
                             const mm_act *bias, mm_activation activation,
                             int64_t n_rows, int64_t n_in, int64_t n_out)
{
    MM_CUDA_REQUIRE("linear_act",
                    stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CUDA_REQUIRE("linear_act", n_rows == 0 || (y && x && w));
    mm_act *sums = pre ? pre : y;
    const mm_cuda_product p =
        forward(stream, sums, x, w, bias, n_rows, n_in, n_out);
    MM_TRY(mm_cuda_multiply(stream, &p));
    return mm_cuda_activate(stream, y, sums, activation, n_rows * n_out);
}
