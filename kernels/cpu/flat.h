#ifndef MAGMAX_KERNELS_CPU_FLAT_H
#define MAGMAX_KERNELS_CPU_FLAT_H

#include "kernels/cpu/cpu.h"

#include <omp.h>

/** Elements that a thread takes at a time from a flat buffer. */
enum { MM_CPU_FLAT_CHUNK = 32 << 10 };

/**
 * Run statements for each chunk [lo, hi) of [0, n_elems) on the stream's
 * threads, letting the transport make progress in between. Chunks do not depend
 * on the number of threads.
 */
#define MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, ...)                    \
    do {                                                                   \
        const int64_t n_chunks_ = mm_ceil_div(n_elems, MM_CPU_FLAT_CHUNK); \
        const int team_ = mm_cpu_team(mm_cpu_stream_of(stream), n_elems);  \
        _Pragma("omp parallel num_threads(team_)")                         \
        {                                                                  \
            int64_t done_ = 0;                                             \
            _Pragma("omp for schedule(static)") for (int64_t chunk_ = 0;   \
                                                     chunk_ < n_chunks_;   \
                                                     chunk_++)             \
            {                                                              \
                const int64_t lo = chunk_ * MM_CPU_FLAT_CHUNK;             \
                const int64_t hi =                                         \
                    mm_min_i64(n_elems, lo + MM_CPU_FLAT_CHUNK);           \
                __VA_ARGS__                                                \
                mm_cpu_poll(stream, omp_get_thread_num(), &done_,          \
                            16 * (hi - lo));                               \
            }                                                              \
        }                                                                  \
    } while (0)

/** A sum is that of the sums of at most this many ranges, added in order; no
 * range but the last has less work than the minimum. */
enum { MM_CPU_SUM_RANGES = 512, MM_CPU_SUM_WORK = 4096 };

/**
 * *sum = what statements add to the double `total` in all ranges [lo, hi) of
 * [0, n_items), on the stream's threads, letting the transport make progress in
 * between.
 * An item is `work` units. Ranges do not depend on the number of threads.
 */
#define MM_CPU_SUM(stream, sum, n_items, work, lo, hi, total, ...)       \
    do {                                                                 \
        double partial_[MM_CPU_SUM_RANGES] = {0};                        \
        const int64_t length_ =                                          \
            mm_max_i64(mm_ceil_div(MM_CPU_SUM_WORK, work),               \
                       mm_ceil_div(n_items, MM_CPU_SUM_RANGES));         \
        const int64_t n_ranges_ = mm_ceil_div(n_items, length_);         \
        const int team_ =                                                \
            mm_cpu_team(mm_cpu_stream_of(stream), (n_items) * (work));   \
        _Pragma("omp parallel num_threads(team_)")                       \
        {                                                                \
            int64_t done_ = 0;                                           \
            _Pragma("omp for schedule(static)") for (int64_t range_ = 0; \
                                                     range_ < n_ranges_; \
                                                     range_++)           \
            {                                                            \
                const int64_t lo = range_ * length_;                     \
                const int64_t hi = mm_min_i64(n_items, lo + length_);    \
                double total = 0.0;                                      \
                __VA_ARGS__                                              \
                partial_[range_] = total;                                \
                mm_cpu_poll(stream, omp_get_thread_num(), &done_,        \
                            16 * (work) * (hi - lo));                    \
            }                                                            \
        }                                                                \
        *(sum) = 0.0;                                                    \
        for (int64_t range_ = 0; range_ < n_ranges_; range_++)           \
            *(sum) += partial_[range_];                                  \
    } while (0)

#endif
