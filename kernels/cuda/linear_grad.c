#include "kernels/cuda/product.h"

static mm_status backward(mm_stream *stream, mm_act *dx, const mm_act *dy,
                          const mm_act *w, int64_t n_rows, int64_t n_in,
                          int64_t n_out)
{
    mm_cuda_product p = {.m = n_rows, .n = n_in, .k = n_out};
    p.a = dy;
    p.b = w;
    p.type = mm_cuda_act_type(stream);
    p.out = p.type;
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
    MM_TRY(mm_cuda_activate_grad(stream, dpre, pre, activation, n_rows * n_in));
    return mm_cuda_bias_grad(stream, dbias, dpre, n_in, accumulate, n_rows,
                             n_in);
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
    mm_cuda_product p = {.m = n_out, .n = n_in, .k = n_rows};
    p.a = dy;
    p.transpose_a = true;
    p.b = x;
    p.type = mm_cuda_act_type(stream);
    p.out = CUDA_R_32F;
    p.c = dw;
    p.addend = accumulate ? dw : NULL;
    p.a_sums = dbias;
    p.accumulate_sums = accumulate;
    return mm_cuda_multiply(stream, &p);
}
