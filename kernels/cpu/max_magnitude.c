#include "kernels/cpu/flat.h"

mm_status MM_CPU(max_magnitude)(mm_stream *stream, float *best,
                                uint16_t *winner, const float *tuned,
                                const float *base, uint16_t task,
                                int64_t n_elems)
{
    MM_CPU_REQUIRE("max_magnitude", stream && n_elems >= 0);
    MM_CPU_REQUIRE("max_magnitude",
                   n_elems == 0 || (best && winner && tuned && base));
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        _Pragma("omp simd") for (int64_t i = lo; i < hi; i++)
        {
            float d = tuned[i] - base[i];
            bool wins = __builtin_fabsf(d) >= __builtin_fabsf(best[i]);
            best[i] = wins ? d : best[i];
            winner[i] = wins ? task : winner[i];
        }
    });
    return MM_OK;
}
