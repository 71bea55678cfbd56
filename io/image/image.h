#ifndef MAGMAX_IO_IMAGE_IMAGE_H
#define MAGMAX_IO_IMAGE_IMAGE_H

#include "src/base/status.h"

#include <stdint.h>

/** What the bytes of a pixel mean; Pillow's modes, which decide how an image is
 * resized and turned into three channels. */
typedef enum mm_image_mode {
    MM_IMAGE_GREY,       /* L:    1 channel                          */
    MM_IMAGE_GREY_ALPHA, /* LA:   2                                  */
    MM_IMAGE_RGB,        /* RGB:  3                                  */
    MM_IMAGE_RGBA,       /* RGBA: 4, alpha not multiplied in         */
    MM_IMAGE_CMYK,       /* CMYK: 4, as Pillow holds it (0: no ink)  */
    MM_IMAGE_PALETTE,    /* P:    1, an index into `palette`         */
    MM_IMAGE_BILEVEL,    /* 1:    1, 0 or 255                        */
    MM_IMAGE_GREY_16,    /* I;16: 2 bytes a pixel, little-endian     */
} mm_image_mode;

/** One image in memory. */
typedef struct mm_image {
    const uint8_t *pixels; /* [height, width, channels], borrowed */
    int64_t height, width;
    int channels; /* bytes a pixel */
    mm_image_mode mode;
    const uint8_t *palette; /* [256, 3] RGB for MM_IMAGE_PALETTE, else NULL */
} mm_image;

/** Decodes images of any known format; holds the scratch of one thread. */
typedef struct mm_image_decoder mm_image_decoder;

mm_status mm_image_decoder_create(mm_image_decoder **decoder);
void mm_image_decoder_destroy(mm_image_decoder **decoder);

/**
 * Decode a JPEG, PNG, WebP or PPM/PGM/PBM file that is in memory; the content
 * tells which.
 *
 * Memory   *image points into the decoder, until its next call; scratch grows
 *          with the largest image seen. bytes are borrowed for the call.
 * Ranks    Local; one decoder per thread.
 * Repeat   Pillow's pixels for the same version of the format's library; an
 *          orientation in EXIF data is not applied.
 * Errors   MM_E_FORMAT, naming `where`, for bytes of no known format, truncated
 *          or damaged ones, and implausible sizes; MM_E_MEMORY.
 *          *image is then undefined.
 */
mm_status mm_image_decode(mm_image_decoder *decoder, const void *bytes,
                          int64_t n_bytes, const char *where, mm_image *image);

#endif
