#ifndef MAGMAX_SRC_IMAGE_RESIZE_H
#define MAGMAX_SRC_IMAGE_RESIZE_H

#include "io/image/image.h"
#include "src/image/resample.h"

/** A box of an image. */
typedef struct mm_box {
    int64_t left, top, width, height;
} mm_box;

/**
 * Resizes images of every mode as Pillow's Image.resize(BICUBIC), and then
 * makes them RGB as its convert("RGB"): palettes and bilevel images by nearest
 * neighbour, alpha multiplied in and divided out again and dropped, 16 bits
 * clamped to 8. Holds the scratch of one thread.
 */
typedef struct mm_resizer mm_resizer;

mm_status mm_resizer_create(mm_resizer **resizer);
void mm_resizer_destroy(mm_resizer **resizer);

/**
 * Resize a box of an image and give the window of the result as RGB.
 *
 * Shapes   out: [window height, window width, 3], contiguous.
 * Memory   Borrows all for the call; scratch grows to the largest call so far.
 * Ranks    Local; one resizer per thread.
 * Repeat   Pillow's bytes, on every processor.
 * Errors   MM_E_MEMORY. A box or window outside is a bug.
 */
mm_status mm_resize(mm_resizer *resizer, const mm_image *image,
                    const mm_box *box, const mm_window *window, uint8_t *out);

#endif
