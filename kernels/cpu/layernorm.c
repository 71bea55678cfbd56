/* Layer norm on the CPU, which keeps each row's mean and inverse deviation for
 * the gradient. */

#include "kernels/cpu/layernorm.h"

#include <math.h>

mm_status MM_CPU(layernorm)(mm_stream *stream, mm_act *y, float *mean,
                            float *rstd, const mm_act *x, int64_t x_stride,
                            const float *gamma, const float *beta, float eps,
                            int64_t n_rows, int64_t width)
{
    MM_CPU_REQUIRE("layernorm", stream && n_rows >= 0 && width >= 0);
    if (n_rows == 0 || width == 0)
        return MM_OK;
    MM_CPU_REQUIRE("layernorm", y && x && gamma && beta);
    MM_CPU_REQUIRE("layernorm", x_stride >= width || n_rows == 1);
    float *to = MM_CPU_FLOATS(y);
    const float *from = MM_CPU_FLOATS(x);
    const mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    int team = mm_cpu_team(cpu, n_rows * width);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n_rows; i++) {
        const float *row = from + i * x_stride;
        float *out = to + i * width;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < width; j++)
            sum += row[j];
        float mu = sum / (float)width;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (int64_t j = 0; j < width; j++)
            squares += (row[j] - mu) * (row[j] - mu);
        float scale = 1.0f / sqrtf(squares / (float)width + eps);
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            out[j] = (row[j] - mu) * scale * gamma[j] + beta[j];
        if (mean)
            mean[i] = mu;
        if (rstd)
            rstd[i] = scale;
    }
    return MM_OK;
}
