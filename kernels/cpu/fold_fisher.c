/* Adding one squared gradient to a diagonal Fisher information, without fused
 * multiply-add. */

#include "kernels/cpu/flat.h"

mm_status MM_CPU(fold_fisher)(mm_stream *stream, float *fisher,
                              const float *grad, float keep, float scale,
                              int64_t n_elems)
{
    MM_CPU_REQUIRE("fold_fisher", stream && n_elems >= 0);
    MM_CPU_REQUIRE("fold_fisher", n_elems == 0 || (fisher && grad));
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        _Pragma("omp simd") for (int64_t i = lo; i < hi; i++) fisher[i] =
            keep * fisher[i] + scale * (grad[i] * grad[i]);
    });
    return MM_OK;
}
