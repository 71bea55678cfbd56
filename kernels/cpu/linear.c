/* Linear layers, with and without an activation, by way of product.c. */

#include "kernels/cpu/product.h"

static mm_cpu_product forward(mm_act *y, const mm_act *x, const mm_act *w,
                              const mm_act *bias, int64_t n_rows, int64_t n_in,
                              int64_t n_out)
{
    mm_cpu_product p = {.m = n_rows, .n = n_out, .k = n_in};
    p.a = MM_CPU_FLOATS(x);
    p.a_row = n_in;
    p.a_k = 1;
    p.b = MM_CPU_FLOATS(w);
    p.b_k = 1;
    p.b_col = n_in;
    p.c = MM_CPU_FLOATS(y);
    p.bias = MM_CPU_FLOATS(bias);
    return p;
}

mm_status MM_CPU(linear)(mm_stream *stream, mm_act *y, const mm_act *x,
                         const mm_act *w, const mm_act *bias,
                         const mm_act *residual, int64_t n_rows, int64_t n_in,
                         int64_t n_out)
{
    MM_CPU_REQUIRE("linear", stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear", n_rows == 0 || (y && x && w));
    mm_cpu_product p = forward(y, x, w, bias, n_rows, n_in, n_out);
    p.addend = MM_CPU_FLOATS(residual);
    return MM_CPU(product)(stream, &p);
}

mm_status MM_CPU(linear_act)(mm_stream *stream, mm_act *y, mm_act *pre,
                             const mm_act *x, const mm_act *w,
                             const mm_act *bias, mm_activation activation,
                             int64_t n_rows, int64_t n_in, int64_t n_out)
{
    MM_CPU_REQUIRE("linear_act",
                   stream && n_rows >= 0 && n_in >= 0 && n_out >= 0);
    MM_CPU_REQUIRE("linear_act", n_rows == 0 || (y && x && w));
    mm_cpu_product p = forward(y, x, w, bias, n_rows, n_in, n_out);
    p.epilogue = MM_CPU_ACTIVATE;
    p.activation = activation;
    p.pre = MM_CPU_FLOATS(pre);
    return MM_CPU(product)(stream, &p);
}
