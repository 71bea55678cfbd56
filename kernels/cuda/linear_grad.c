/* Gradients of linear layers for their input, their weight and bias, and the
 * activation below, by way of product.c. */

#include "kernels/cuda/product.h"

static mm_status backward(mm_stream *stream, mm_act *dx, const mm_act *dy,
                          const mm_act *w, int64_t n_rows, int64_t n_in,
                          int64_t n_out)
{
    mm_cuda_product p = mm_cuda_product_input_grad(mm_cuda_act_type(stream),
                                                   n_rows, n_in, n_out);
    p.a = dy;
    p.b = w;
    p.c = dx;
    return mm_cuda_multiply(stream, &p);
}

mm_status mm_cuda_linear_grad_input(mm_stream *stream, mm_act *dx,
                                    const mm_act *dy, const mm_act *w,
                                    int64_t n_rows, int64_t n_in, int64_t n_out)
{
    MM_CUDA_REQUIRE("linear_grad_input",
                    stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CUDA_REQUIRE("linear_grad_input", n_rows == 0 || (dx && dy && w));
    return backward(stream, dx, dy, w, n_rows, n_in, n_out);
}

mm_status mm_cuda_linear_grad_act(mm_stream *stream, mm_act *dpre, float *dbias,
                                  const mm_act *dy, const mm_act *w,
                                  const mm_act *pre, mm_activation activation,
                                  bool accumulate, int64_t n_rows, int64_t n_in,
                                  int64_t n_out)
{
    MM_CUDA_REQUIRE("linear_grad_act",
                    stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CUDA_REQUIRE("linear_grad_act", dpre != pre || n_rows == 0);
    MM_CUDA_REQUIRE("linear_grad_act", n_rows == 0 || (dpre && dy && w && pre));
    MM_TRY(backward(stream, dpre, dy, w, n_rows, n_in, n_out));
    return mm_cuda_activate_grad(stream, dpre, dbias, pre, activation,
                                 accumulate, n_rows, n_in);
}

mm_status mm_cuda_linear_grad_weight(mm_stream *stream, float *dw, float *dbias,
                                     const mm_act *dy, const mm_act *x,
                                     bool accumulate, int64_t n_rows,
                                     int64_t n_in, int64_t n_out)
{
    MM_CUDA_REQUIRE("linear_grad_weight",
                    stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CUDA_REQUIRE("linear_grad_weight",
                    n_out == 0 || (dw && (n_rows == 0 || (dy && x))));
    mm_cuda_product p = mm_cuda_product_weight_grad(mm_cuda_act_type(stream),
                                                    n_rows, n_in, n_out);
    p.a = dy;
    p.b = x;
    p.c = dw;
    p.addend = accumulate ? dw : NULL;
    p.a_sums = dbias;
    p.accumulate_sums = accumulate;
    return mm_cuda_multiply(stream, &p);
}
