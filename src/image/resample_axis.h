#ifndef MAGMAX_SRC_IMAGE_RESAMPLE_AXIS_H
#define MAGMAX_SRC_IMAGE_RESAMPLE_AXIS_H

#include "src/base/status.h"

#include <stdint.h>

/* Fixed-point weights have so many fractional bits, as Pillow's. */
enum { MM_WEIGHT_BITS = 32 - 8 - 2 };

/** Which inputs make one output. */
typedef struct mm_taps {
    int64_t first;
    int64_t n;
} mm_taps;

/** Two adjacent weights, each split into upper * 2^16 + lower, for kernels
 * that multiply 8 and 16 bits. */
typedef struct mm_tap_pair {
    int8_t upper[4]; /* first, second, first, second */
    int16_t lower[2];
} mm_tap_pair;

/**
 * One direction of a bicubic resize: the inputs and weights of each wanted
 * output. Row i of the weights begins at i * stride, and is zero from taps[i].n
 * to stride, which is even.
 */
typedef struct mm_axis {
    int64_t n_in, n_out; /* sizes of the whole axis */
    int64_t lo, n;       /* outputs [lo, lo + n)    */
    int64_t from, to;    /* inputs [from, to) are read */
    mm_taps *taps;       /* [n] */
    int64_t stride;
    double *exact;      /* [n, stride], each row's sum is one */
    int32_t *weights;   /* [n, stride], the same in fixed point */
    mm_tap_pair *pairs; /* [n, stride / 2], the same once more */
    int64_t taps_held, weights_held;
} mm_axis;

/**
 * Fill *axis for outputs [lo, lo + n) when n_in inputs become n_out; nothing is
 * to be done where the last call asked for the same.
 *
 * Memory   An axis starts as zeros; clear it at the end.
 * Ranks    Local.
 * Repeat   Pillow's weights (precompute_coeffs) for BICUBIC.
 * Errors   MM_E_MEMORY; the axis is then empty.
 */
mm_status mm_axis_set(mm_axis *axis, int64_t n_in, int64_t n_out, int64_t lo,
                      int64_t n);
void mm_axis_clear(mm_axis *axis);

#endif
