/* The fold of a random mix: each element's task is drawn once, and its change
 * taken when that task comes. */

#include "kernels/cpu/elementary.h"
#include "kernels/cpu/flat.h"

#include "src/base/rng.h"

mm_status MM_CPU(random_delta)(mm_stream *stream, float *tau, uint16_t *winner,
                               const float *tuned, const float *base,
                               uint16_t task, uint16_t n_tasks, uint64_t seed,
                               int64_t first_elem, int64_t n_elems)
{
    MM_CPU_REQUIRE("random_delta", stream && first_elem >= 0 && n_elems >= 0);
    MM_CPU_REQUIRE("random_delta", n_tasks > 0 && task < n_tasks);
    MM_CPU_REQUIRE("random_delta",
                   n_elems == 0 || (tau && winner && tuned && base));
    const mm_rng_key key = mm_rng_key_of(seed, MM_RNG_MERGE);
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        for (int64_t i = lo; task == 0 && i < hi; i++)
            winner[i] = (uint16_t)mm_rng_below(key, (uint64_t)(first_elem + i),
                                               n_tasks);
        _Pragma("omp simd") for (int64_t i = lo; i < hi; i++)
        {
            /* Selecting bits: conditional stores would not be vectors. */
            uint32_t take = -(uint32_t)(winner[i] == task);
            float d = tuned[i] - base[i];
            tau[i] = mm_float_of_bits((mm_bits_of_float(d) & take) |
                                      (mm_bits_of_float(tau[i]) & ~take));
        }
    });
    return MM_OK;
}
