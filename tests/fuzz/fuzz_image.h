#ifndef MAGMAX_TESTS_FUZZ_FUZZ_IMAGE_H
#define MAGMAX_TESTS_FUZZ_FUZZ_IMAGE_H

#include "io/image/image.h"
#include "src/image/transform.h"
#include "tests/fuzz/fuzz_file.h"

#include <stdlib.h>

/** Decode bytes and, where that works, transform the image as evaluation does.
 * Decoder and transform stay, so that scratch of one input meets the next. */
static inline void fuzz_image(const uint8_t *data, size_t size)
{
    enum { SIDE = 24 };
    static mm_image_decoder *decoder;
    static mm_transform *transform;
    static uint8_t out[SIDE * SIDE * 3];
    if (!decoder && (mm_image_decoder_create(&decoder) != MM_OK ||
                     mm_transform_create(SIDE, &transform) != MM_OK))
        abort();
    mm_image image;
    if (mm_image_decode(decoder, data, (int64_t)size, "input", &image) == MM_OK)
        (void)mm_transform_evaluation(transform, &image, out);
}

#endif
