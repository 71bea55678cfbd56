/* Counting NaN and infinity by their exponent bits. */

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/elementary.h"

mm_status MM_CPU(count_nonfinite)(mm_stream *stream, int64_t *count,
                                  const float *x, int64_t n_elems)
{
    MM_CPU_REQUIRE("count_nonfinite", stream && count && n_elems >= 0);
    MM_CPU_REQUIRE("count_nonfinite", x || n_elems == 0);
    const uint32_t exponent = 0x7F800000u;
    int64_t n = 0;
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_elems);
#pragma omp parallel for simd schedule(static) num_threads(team)               \
    reduction(+ : n)
    for (int64_t i = 0; i < n_elems; i++)
        n += (mm_bits_of_float(x[i]) & exponent) == exponent;
    *count = n;
    return MM_OK;
}
