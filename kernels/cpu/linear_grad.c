/* Gradients of linear layers for their input, their weight and bias, and the
 * activation below, by way of product.c. */

#include "kernels/cpu/column_sums.h"
#include "kernels/cpu/product.h"

static mm_cpu_product backward(mm_act *dx, const mm_act *dy, const mm_act *w,
                               int64_t n_rows, int64_t n_in, int64_t n_out)
{
    mm_cpu_product p = {.m = n_rows, .n = n_in, .k = n_out};
    p.a = MM_CPU_FLOATS(dy);
    p.a_row = n_out;
    p.a_k = 1;
    p.b = MM_CPU_FLOATS(w);
    p.b_k = n_in;
    p.b_col = 1;
    p.c = MM_CPU_FLOATS(dx);
    return p;
}

mm_status MM_CPU(linear_grad_input)(mm_stream *stream, mm_act *dx,
                                    const mm_act *dy, const mm_act *w,
                                    int64_t n_rows, int64_t n_in, int64_t n_out)
{
    MM_CPU_REQUIRE("linear_grad_input",
                   stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear_grad_input", n_rows == 0 || (dx && dy && w));
    mm_cpu_product p = backward(dx, dy, w, n_rows, n_in, n_out);
    return MM_CPU(product)(stream, &p);
}

mm_status MM_CPU(linear_grad_act)(mm_stream *stream, mm_act *dpre, float *dbias,
                                  const mm_act *dy, const mm_act *w,
                                  const mm_act *pre, mm_activation activation,
                                  bool accumulate, int64_t n_rows, int64_t n_in,
                                  int64_t n_out)
{
    MM_CPU_REQUIRE("linear_grad_act",
                   stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear_grad_act", dpre != pre || n_rows == 0);
    MM_CPU_REQUIRE("linear_grad_act", n_rows == 0 || (dpre && dy && w && pre));
    mm_cpu_product p = backward(dpre, dy, w, n_rows, n_in, n_out);
    p.epilogue = MM_CPU_ACTIVATION_GRAD;
    p.activation = activation;
    p.pre = (float *)(uintptr_t)pre; /* only read by this epilogue */
    MM_TRY(MM_CPU(product)(stream, &p));
    if (dbias)
        MM_CPU(column_sums)(stream, dbias, p.c, n_in, accumulate, n_rows, n_in);
    return MM_OK;
}

mm_status MM_CPU(linear_grad_weight)(mm_stream *stream, float *dw, float *dbias,
                                     const mm_act *dy, const mm_act *x,
                                     bool accumulate, int64_t n_rows,
                                     int64_t n_in, int64_t n_out)
{
    MM_CPU_REQUIRE("linear_grad_weight",
                   stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear_grad_weight",
                   n_out == 0 || (dw && (n_rows == 0 || (dy && x))));
    mm_cpu_product p = {.m = n_out, .n = n_in, .k = n_rows};
    p.a = MM_CPU_FLOATS(dy);
    p.a_row = 1;
    p.a_k = n_out;
    p.b = MM_CPU_FLOATS(x);
    p.b_k = n_in;
    p.b_col = 1;
    p.c = dw;
    p.a_sums = dbias;
    p.accumulate = accumulate;
    return MM_CPU(product)(stream, &p);
}
