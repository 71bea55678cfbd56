#include "io/image/image_decoder.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What a file of a format begins with; '?' in the pattern is any byte. */
typedef struct format {
    const char *start;
    int n_bytes;
    mm_status (*decode)(mm_image_decoder *decoder, const mm_image_file *file,
                        mm_image *image);
} format;

static const format formats[] = {
    {"\xFF\xD8\xFF", 3, mm_image_decode_jpeg},
    {"\x89PNG\r\n\x1A\n", 8, mm_image_decode_png},
    {"RIFF????WEBP", 12, mm_image_decode_webp},
    {"P1", 2, mm_image_decode_pnm},
    {"P2", 2, mm_image_decode_pnm},
    {"P3", 2, mm_image_decode_pnm},
    {"P4", 2, mm_image_decode_pnm},
    {"P5", 2, mm_image_decode_pnm},
    {"P6", 2, mm_image_decode_pnm},
};

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

static bool begins_with(const mm_image_file *file, const format *f)
{
    if (file->n_bytes < f->n_bytes)
        return false;
    for (int i = 0; i < f->n_bytes; i++)
        if (f->start[i] != '?' && file->bytes[i] != (uint8_t)f->start[i])
            return false;
    return true;
}

mm_status mm_image_decode(mm_image_decoder *decoder, const void *bytes,
                          int64_t n_bytes, const char *where, mm_image *image)
{
    mm_image_file file = {bytes, n_bytes, where};
    if (n_bytes < 1)
        return mm_fail(MM_E_FORMAT, "%s: the image file is empty", where);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (begins_with(&file, &formats[i]))
            return formats[i].decode(decoder, &file, image);
    return mm_fail(MM_E_FORMAT,
                   "%s: not an image that is known here (JPEG, PNG, WebP, "
                   "PPM, PGM, PBM)",
                   where);
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

mm_status mm_image_begin(mm_image_decoder *decoder, const mm_image_file *file,
                         int64_t width, int64_t height, mm_image_mode mode,
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
