/* MagMax's fold: the change of largest magnitude of each element, and the task
 * that it came from. */

#include "kernels/cpu/elementary.h"
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
            /* Selecting bits: conditional stores would not be vectors. */
            bool wins = __builtin_fabsf(d) >= __builtin_fabsf(best[i]);
            uint32_t take = -(uint32_t)wins;
            best[i] = mm_float_of_bits((mm_bits_of_float(d) & take) |
                                       (mm_bits_of_float(best[i]) & ~take));
            winner[i] = (uint16_t)((task & take) | (winner[i] & ~take));
        }
    });
    return MM_OK;
}
