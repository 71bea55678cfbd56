/* One AdamW step with clipping on the CPU; without a finite gradient norm it
 * changes nothing. */

#include "kernels/cpu/flat.h"

#include <math.h>
#include <string.h>

static float clipping(const mm_adamw *step, double norm)
{
    return step->clip > 0 ? (float)fmin(1.0, step->clip / (norm + 1e-6)) : 1.0f;
}

mm_status MM_CPU(adamw)(mm_stream *stream, float *theta, float *m, float *v,
                        mm_act *theta_low, const float *grad,
                        const mm_adamw *step, int64_t n_elems)
{
    MM_CPU_REQUIRE("adamw", stream && step && n_elems >= 0);
    MM_CPU_REQUIRE("adamw", n_elems == 0 || (theta && m && v && grad));
    MM_CPU_REQUIRE("adamw", step->grad_squares);
    const mm_adamw s = *step;
    const double norm = sqrt(*s.grad_squares);
    if (!isfinite(norm))
        return MM_OK;
    const float scale = clipping(step, norm);
    float *copy = MM_CPU_FLOATS(theta_low);
    const float decay = s.lr * s.weight_decay;
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        _Pragma("omp simd") for (int64_t i = lo; i < hi; i++)
        {
            float g = grad[i] * scale;
            float t = theta[i] - decay * theta[i];
            float mi = s.beta1 * m[i] + (1.0f - s.beta1) * g;
            float vi = s.beta2 * v[i] + (1.0f - s.beta2) * (g * g);
            m[i] = mi;
            v[i] = vi;
            theta[i] =
                t - s.lr * (mi / s.bias1) / (sqrtf(vi / s.bias2) + s.eps);
        }
        if (copy)
            memcpy(copy + lo, theta + lo, (size_t)(hi - lo) * sizeof *copy);
    });
    return MM_OK;
}
