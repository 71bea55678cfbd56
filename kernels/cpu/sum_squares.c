/* The squared norm of a flat buffer, added up in fp64 in a fixed order. */

#include "kernels/cpu/flat.h"

mm_status MM_CPU(sum_squares)(mm_stream *stream, double *sum, const float *x,
                              int64_t n_elems)
{
    MM_CPU_REQUIRE("sum_squares", stream && sum && n_elems >= 0);
    MM_CPU_REQUIRE("sum_squares", x || n_elems == 0);
    MM_CPU_SUM(stream, sum, n_elems, 1, lo, hi, total, {
        _Pragma("omp simd reduction(+ : total)") for (int64_t i = lo; i < hi;
                                                      i++) total +=
            (double)x[i] * (double)x[i];
    });
    return MM_OK;
}
