#ifndef MAGMAX_SRC_IMAGE_RESAMPLE_H
#define MAGMAX_SRC_IMAGE_RESAMPLE_H

#include "src/base/status.h"

#include <stdint.h>

/** Pixels to read: a whole image, or a box of one. */
typedef struct mm_pixels {
    const uint8_t *first; /* channel 0 of the upper left pixel      */
    int64_t stride_bytes; /* from one row to the next               */
    int64_t height, width;
    int channels; /* 1 to 4, a byte each                    */
} mm_pixels;

/** The size to resize to, and which part of the result is wanted. */
typedef struct mm_window {
    int64_t full_height, full_width; /* of the whole resized image  */
    int64_t top, left;               /* of the part, within it      */
    int64_t height, width;           /* of the part                 */
} mm_window;

/**
 * Bicubic resizing with antialias in Pillow's arithmetic (ImagingResample:
 * columns first and rounded, rows after). Holds the scratch of one thread, and
 * the last call's weights, which images of one size share.
 */
typedef struct mm_resampler mm_resampler;

mm_status mm_resampler_create(mm_resampler **resampler);
void mm_resampler_destroy(mm_resampler **resampler);

/**
 * Resize, computing only what the window needs; integers with weights of 22
 * fractional bits.
 *
 * Shapes   out: [window height, window width, channels], contiguous.
 * Memory   Borrows pixels and out for the call; they may not overlap. Scratch
 *          grows to the largest call so far.
 * Ranks    Local; one resampler per thread.
 * Timing   Blocking.
 * Repeat   The bytes of Pillow's Image.resize(BICUBIC) and crop, on every
 *          processor.
 * Errors   MM_E_MEMORY. Sizes below 1 and a window outside are bugs.
 */
mm_status mm_resample(mm_resampler *resampler, const mm_pixels *pixels,
                      const mm_window *window, uint8_t *out);

/**
 * As mm_resample for one channel of 16 bits (little-endian; `channels` is its
 * two bytes), in double precision and rounded to integers, as Pillow resizes
 * its mode I. Results may lie outside of 16 bits.
 *
 * Shapes   out: [window height, window width].
 */
mm_status mm_resample_wide(mm_resampler *resampler, const mm_pixels *pixels,
                           const mm_window *window, int32_t *out);

#endif
