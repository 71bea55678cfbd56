/* Adding one task's weight change to a sum, for averages and task arithmetic.
 */

#include "kernels/cpu/flat.h"

mm_status MM_CPU(add_delta)(mm_stream *stream, float *sum, const float *tuned,
                            const float *base, int64_t n_elems)
{
    MM_CPU_REQUIRE("add_delta", stream && n_elems >= 0);
    MM_CPU_REQUIRE("add_delta", n_elems == 0 || (sum && tuned && base));
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        _Pragma("omp simd") for (int64_t i = lo; i < hi; i++) sum[i] +=
            tuned[i] - base[i];
    });
    return MM_OK;
}
