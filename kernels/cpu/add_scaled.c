/* Merged weights from the base and the scaled change, each operation rounded to
 * fp32. */

#include "kernels/cpu/flat.h"

mm_status MM_CPU(add_scaled)(mm_stream *stream, float *out, const float *base,
                             const float *tau, float divisor, float coef,
                             int64_t n_elems)
{
    MM_CPU_REQUIRE("add_scaled", stream && n_elems >= 0);
    MM_CPU_REQUIRE("add_scaled", n_elems == 0 || (out && base && tau));
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        _Pragma("omp simd") for (int64_t i = lo; i < hi; i++) out[i] =
            base[i] + coef * (tau[i] / divisor);
    });
    return MM_OK;
}
