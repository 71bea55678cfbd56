#include "kernels/cpu/flat.h"

/* Partial sums of fixed ranges, added in order: at most this many. */
enum { RANGES = 512, MIN_RANGE = 4096 };

mm_status MM_CPU(sum_squares)(mm_stream *stream, double *sum, const float *x,
                              int64_t n_elems)
{
    MM_CPU_REQUIRE("sum_squares", stream && sum && n_elems >= 0);
    MM_CPU_REQUIRE("sum_squares", x || n_elems == 0);
    double partial[RANGES] = {0};
    int64_t length = mm_max_i64(MIN_RANGE, mm_ceil_div(n_elems, RANGES));
    int64_t n_ranges = mm_ceil_div(n_elems, length);
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_elems);
#pragma omp parallel num_threads(team)
    {
        int64_t done = 0;
#pragma omp for schedule(static)
        for (int64_t range = 0; range < n_ranges; range++) {
            int64_t end = mm_min_i64(n_elems, (range + 1) * length);
            double total = 0.0;
#pragma omp simd reduction(+ : total)
            for (int64_t i = range * length; i < end; i++)
                total += (double)x[i] * (double)x[i];
            partial[range] = total;
            mm_cpu_poll(stream, omp_get_thread_num(), &done, 16 * length);
        }
    }
    *sum = 0.0;
    for (int64_t range = 0; range < n_ranges; range++)
        *sum += partial[range];
    return MM_OK;
}
