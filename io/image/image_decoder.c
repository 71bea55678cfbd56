/* What the readers of image formats share: the memory that images are decoded
 * into. */

#include "io/image/image_decoder.h"

#include <stdlib.h>

mm_status mm_image_decoder_create(mm_image_decoder **decoder)
{
    *decoder = calloc(1, sizeof **decoder);
    if (!*decoder)
        return mm_fail(MM_E_MEMORY, "no memory to decode images");
    return MM_OK;
}

void mm_image_decoder_destroy(mm_image_decoder **decoder)
{
    if (!*decoder)
        return;
    free((*decoder)->pixels);
    free(*decoder);
    *decoder = NULL;
}

static int channels_of(mm_image_mode mode)
{
    switch (mode) {
    case MM_IMAGE_GREY:
    case MM_IMAGE_PALETTE:
    case MM_IMAGE_BILEVEL:
        return 1;
    case MM_IMAGE_GREY_ALPHA:
    case MM_IMAGE_GREY_16:
        return 2;
    case MM_IMAGE_RGB:
        return 3;
    case MM_IMAGE_RGBA:
    case MM_IMAGE_CMYK:
        break;
    }
    return 4;
}

mm_status mm_image_make_room(mm_image_decoder *decoder,
                             const mm_image_file *file, int64_t width,
                             int64_t height, mm_image_mode mode,
                             mm_image *image, uint8_t **pixels)
{
    if (width < 1 || height < 1)
        return mm_fail(MM_E_FORMAT, "%s: an image of %lld x %lld has no pixels",
                       file->where, (long long)width, (long long)height);
    if (width > MM_IMAGE_MAX_PIXELS / height)
        return mm_fail(MM_E_FORMAT,
                       "%s: %lld x %lld pixels are more than the %lld that an "
                       "image may have",
                       file->where, (long long)width, (long long)height,
                       (long long)MM_IMAGE_MAX_PIXELS);
    int channels = channels_of(mode);
    int64_t n_bytes = width * height * channels;
    if (n_bytes > decoder->pixels_bytes) {
        free(decoder->pixels);
        decoder->pixels = malloc((size_t)n_bytes);
        decoder->pixels_bytes = decoder->pixels ? n_bytes : 0;
    }
    if (!decoder->pixels)
        return mm_fail(MM_E_MEMORY, "%s: no memory for %lld x %lld pixels",
                       file->where, (long long)width, (long long)height);
    *image = (mm_image){
        .pixels = decoder->pixels,
        .height = height,
        .width = width,
        .channels = channels,
        .mode = mode,
        .palette = mode == MM_IMAGE_PALETTE ? decoder->palette : NULL,
    };
    *pixels = decoder->pixels;
    return MM_OK;
}
