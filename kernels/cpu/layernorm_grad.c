/* The gradient of layer norm; sums over rows are added up in groups, in a fixed
 * order. */

#include "kernels/cpu/column_sums.h"
#include "kernels/cpu/layernorm.h"

#include <string.h>

typedef struct inputs {
    const float *residual, *dy, *x, *mean, *rstd, *gamma;
    int64_t x_stride, width;
} inputs;

/* With xhat = (x - mean) rstd and g = dy gamma, both averaged over the row:
 * dx = rstd (g - mean(g) - xhat mean(g xhat)). Adds the row's part of dgamma
 * and dbeta. */
static void row_grad(float *dx, float *dgamma, float *dbeta, const inputs *in,
                     int64_t i)
{
    const float *x = in->x + i * in->x_stride;
    const float *dy = in->dy + i * in->width;
    const float *gamma = in->gamma;
    float mean = in->mean[i], rstd = in->rstd[i];
    float sum_g = 0.0f, sum_gx = 0.0f;
#pragma omp simd reduction(+ : sum_g, sum_gx)
    for (int64_t j = 0; j < in->width; j++) {
        float xhat = (x[j] - mean) * rstd;
        float g = dy[j] * gamma[j];
        sum_g += g;
        sum_gx += g * xhat;
        dgamma[j] += dy[j] * xhat;
        dbeta[j] += dy[j];
    }
    float mean_g = sum_g / (float)in->width;
    float mean_gx = sum_gx / (float)in->width;
    float *out = dx + i * in->x_stride;
    if (in->residual) {
        const float *residual = in->residual + i * in->x_stride;
#pragma omp simd
        for (int64_t j = 0; j < in->width; j++) {
            float xhat = (x[j] - mean) * rstd;
            out[j] = residual[j] +
                     rstd * (dy[j] * gamma[j] - mean_g - xhat * mean_gx);
        }
    } else {
#pragma omp simd
        for (int64_t j = 0; j < in->width; j++) {
            float xhat = (x[j] - mean) * rstd;
            out[j] = rstd * (dy[j] * gamma[j] - mean_g - xhat * mean_gx);
        }
    }
}

/* out (+)= sum over groups of partial[group * stride + j]. */
static void sum_groups(float *out, const float *partial, int64_t n_groups,
                       int64_t stride, bool accumulate, int64_t width)
{
    if (!accumulate)
        memset(out, 0, (size_t)width * sizeof *out);
    for (int64_t group = 0; group < n_groups; group++)
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            out[j] += partial[group * stride + j];
}

mm_status MM_CPU(layernorm_grad)(mm_stream *stream, mm_act *dx, float *dgamma,
                                 float *dbeta, float *dbias,
                                 const mm_act *residual, const mm_act *dy,
                                 const mm_act *x, int64_t x_stride,
                                 const float *mean, const float *rstd,
                                 const float *gamma, bool accumulate,
                                 int64_t n_rows, int64_t width)
{
    MM_CPU_REQUIRE("layernorm_grad", stream && n_rows >= 0 && width >= 0);
    if (width == 0)
        return MM_OK;
    MM_CPU_REQUIRE("layernorm_grad", dgamma && dbeta);
    MM_CPU_REQUIRE("layernorm_grad",
                   n_rows == 0 || (dx && dy && x && mean && rstd && gamma));
    MM_CPU_REQUIRE("layernorm_grad", x_stride >= width || n_rows <= 1);
    mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    MM_CPU_REQUIRE_SCRATCH("layernorm_grad", cpu,
                           MM_CPU(layernorm_scratch)(width));
    const inputs in = {.residual = MM_CPU_FLOATS(residual),
                       .dy = MM_CPU_FLOATS(dy),
                       .x = MM_CPU_FLOATS(x),
                       .mean = mean,
                       .rstd = rstd,
                       .gamma = gamma,
                       .x_stride = x_stride,
                       .width = width};
    int64_t per_group = mm_max_i64(16, mm_ceil_div(n_rows, MM_CPU_ROW_GROUPS));
    int64_t n_groups = mm_ceil_div(n_rows, per_group);
    float *partial = (float *)cpu->scratch;
    int team = mm_cpu_team(cpu, n_rows * width);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t group = 0; group < n_groups; group++) {
        float *own = partial + group * 2 * width;
        memset(own, 0, (size_t)(2 * width) * sizeof *own);
        int64_t end = mm_min_i64(n_rows, (group + 1) * per_group);
        for (int64_t i = group * per_group; i < end; i++)
            row_grad(MM_CPU_FLOATS(dx), own, own + width, &in, i);
    }
    sum_groups(dgamma, partial, n_groups, 2 * width, accumulate, width);
    sum_groups(dbeta, partial + width, n_groups, 2 * width, accumulate, width);
    if (dbias)
        MM_CPU(column_sums)
    (stream, dbias, MM_CPU_FLOATS(dx), x_stride, accumulate, n_rows, width);
    return MM_OK;
}
