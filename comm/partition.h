#ifndef MAGMAX_COMM_PARTITION_H
#define MAGMAX_COMM_PARTITION_H

#include <stdint.h>

/** A half-open range. */
typedef struct mm_range {
    int64_t lo, hi;
} mm_range;

/**
 * Which of n things part `part` of `n_parts` owns: contiguous, in order, sizes
 * differing by at most one, the larger shares first. Parts beyond n are empty.
 */
static inline mm_range mm_partition(int64_t n, int part, int n_parts)
{
    int64_t share = n / n_parts, larger = n % n_parts;
    int64_t lo = part * share + (part < larger ? part : larger);
    mm_range range = {lo, lo + share + (part < larger)};
    return range;
}

#endif
