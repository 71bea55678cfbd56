#ifndef MAGMAX_IO_IMAGE_IMAGE_DECODER_H
#define MAGMAX_IO_IMAGE_IMAGE_DECODER_H

/* What the readers of image formats share. */

#include "io/image/image.h"

struct mm_image_decoder {
    uint8_t *pixels;
    int64_t pixels_bytes;
    uint8_t palette[256 * 3];
};

/** A file in memory. */
typedef struct mm_image_file {
    const uint8_t *bytes;
    int64_t n_bytes;
    const char *where;
} mm_image_file;

/* Pillow's limit; such a size is a trap or a mistake. */
#define MM_IMAGE_MAX_PIXELS ((int64_t)178956970)

/**
 * Describe the image that is about to be decoded, and make room for it.
 *
 * Memory   Fills *image; *pixels is where the decoder shall write.
 * Ranks    Local.
 * Errors   MM_E_FORMAT for a size below 1 or above MM_IMAGE_MAX_PIXELS;
 *          MM_E_MEMORY.
 */
mm_status mm_image_make_room(mm_image_decoder *decoder,
                             const mm_image_file *file, int64_t width,
                             int64_t height, mm_image_mode mode,
                             mm_image *image, uint8_t **pixels);

/* One function per format; the bytes begin as files of the format do. */
mm_status mm_image_decode_jpeg(mm_image_decoder *decoder,
                               const mm_image_file *file, mm_image *image);
mm_status mm_image_decode_png(mm_image_decoder *decoder,
                              const mm_image_file *file, mm_image *image);
mm_status mm_image_decode_webp(mm_image_decoder *decoder,
                               const mm_image_file *file, mm_image *image);
mm_status mm_image_decode_pnm(mm_image_decoder *decoder,
                              const mm_image_file *file, mm_image *image);

#endif
