#include "kernels/cpu/product.h"

static mm_cpu_product backward(float *dx, const float *dy, const float *w,
                               int64_t n_rows, int64_t n_in, int64_t n_out)
{
    mm_cpu_product p = {.m = n_rows, .n = n_in, .k = n_out};
    p.a = dy;
    p.a_row = n_out;
    p.a_k = 1;
    p.b = w;
    p.b_k = n_in;
    p.b_col = 1;
    p.c = dx;
    return p;
}

mm_status MM_CPU(linear_grad_input)(mm_stream *stream, float *dx,
                                    const float *dy, const float *w,
                                    int64_t n_rows, int64_t n_in, int64_t n_out)
{
    MM_CPU_REQUIRE("linear_grad_input",
                   stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear_grad_input", n_rows == 0 || (dx && dy && w));
    mm_cpu_product p = backward(dx, dy, w, n_rows, n_in, n_out);
    return MM_CPU(product)(stream, &p);
}

mm_status MM_CPU(linear_grad_act)(mm_stream *stream, float *dpre,
                                  const float *dy, const float *w,
                                  const float *pre, mm_activation activation,
                                  int64_t n_rows, int64_t n_in, int64_t n_out)
{
    MM_CPU_REQUIRE("linear_grad_act",
                   stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear_grad_act", dpre != pre || n_rows == 0);
    MM_CPU_REQUIRE("linear_grad_act", n_rows == 0 || (dpre && dy && w && pre));
    mm_cpu_product p = backward(dpre, dy, w, n_rows, n_in, n_out);
    p.epilogue = MM_CPU_ACTIVATION_GRAD;
    p.activation = activation;
    p.pre = (float *)(uintptr_t)pre; /* only read by this epilogue */
    return MM_CPU(product)(stream, &p);
}

mm_status MM_CPU(linear_grad_weight)(mm_stream *stream, float *dw, float *dbias,
                                     const float *dy, const float *x,
                                     bool accumulate, int64_t n_rows,
                                     int64_t n_in, int64_t n_out)
{
    MM_CPU_REQUIRE("linear_grad_weight",
                   stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear_grad_weight",
                   n_out == 0 || (dw && (n_rows == 0 || (dy && x))));
    mm_cpu_product p = {.m = n_out, .n = n_in, .k = n_rows};
    p.a = dy;
    p.a_row = 1;
    p.a_k = n_out;
    p.b = x;
    p.b_k = n_in;
    p.b_col = 1;
    p.c = dw;
    p.a_sums = dbias;
    p.accumulate = accumulate;
    return MM_CPU(product)(stream, &p);
}
