/* The penalty of elastic weight consolidation, summed in fp64, and its
 * gradient. */

#include "kernels/cpu/flat.h"

mm_status MM_CPU(ewc_penalty)(mm_stream *stream, double *penalty, float *grad,
                              const float *theta, const float *old,
                              const float *fisher, float lambda,
                              int64_t n_elems)
{
    MM_CPU_REQUIRE("ewc_penalty", stream && penalty && n_elems >= 0);
    MM_CPU_REQUIRE("ewc_penalty",
                   n_elems == 0 || (grad && theta && old && fisher));
    MM_CPU_SUM(stream, penalty, n_elems, 1, lo, hi, total, {
        _Pragma("omp simd reduction(+ : total)") for (int64_t i = lo; i < hi;
                                                      i++)
        {
            float d = theta[i] - old[i];
            float slope = fisher[i] * d;
            grad[i] = grad[i] + lambda * slope;
            total += (double)slope * (double)d;
        }
    });
    *penalty *= 0.5 * (double)lambda;
    return MM_OK;
}
