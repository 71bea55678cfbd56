/* Decodes images: which reader reads a file is decided by its first bytes. */

#include "io/image/image_decoder.h"

#include <stdbool.h>
#include <stddef.h>

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
