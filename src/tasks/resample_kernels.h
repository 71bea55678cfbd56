#ifndef MAGMAX_SRC_TASKS_RESAMPLE_KERNELS_H
#define MAGMAX_SRC_TASKS_RESAMPLE_KERNELS_H

#include "src/tasks/resample.h"
#include "src/tasks/resample_axis.h"

/* How far a kernel may read behind the last byte that a row's taps need, and
 * write behind the last byte of a row. */
enum { MM_READ_BEYOND = 64, MM_WRITE_BEYOND = 32 };

/** The inner loops of a resize; every implementation gives the same bytes. */
typedef struct mm_resample_kernels {
    const char *name;

    /** Rows that `across` takes at once, for 1 to 4 channels; at most 16. */
    int n_rows[5];

    /** Make out[r], axis->n pixels, from in[r], for the n_rows of `channels`.
     * Rows may be the same row. */
    void (*across)(const mm_axis *axis, int channels, const uint8_t *const *in,
                   uint8_t *const *out);

    /** Make output y, n_bytes, from the rows at `in`, whose first is the axis'
     * first tap of y. */
    void (*down)(const mm_axis *axis, int64_t y, const uint8_t *in,
                 int64_t stride_bytes, int64_t n_bytes, uint8_t *out);
} mm_resample_kernels;

/** Plain loops: the specification. */
const mm_resample_kernels *mm_resample_kernels_plain(void);

/** For x86-64 processors with AVX2; NULL on others. */
const mm_resample_kernels *mm_resample_kernels_avx2(void);

/** mm_resampler_create takes the fastest; a test may choose. */
mm_status mm_resampler_create_with(const mm_resample_kernels *kernels,
                                   mm_resampler **resampler);

#endif
