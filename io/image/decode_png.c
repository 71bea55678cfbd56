/* Decodes PNG by libpng into the modes that Pillow chooses, without
 * transparency. */

#include "io/image/image_decoder.h"

#include <png.h>
#include <stdio.h>
#include <string.h>

/* Deflate shrinks at most so many times. */
static const int64_t most_expansion = 1032;

typedef struct png_file {
    png_structp lib;
    png_infop info;
    const mm_image_file *file;
    int64_t at;
    int n_passes;
    char message[128];
    uint8_t *pixels;
} png_file;

_Noreturn static void on_error(png_structp lib, png_const_charp message)
{
    png_file *f = png_get_error_ptr(lib);
    snprintf(f->message, sizeof f->message, "%s", message);
    png_longjmp(lib, 1);
}

static void on_warning(png_structp lib, png_const_charp message)
{
    (void)lib;
    (void)message;
}

static void on_read(png_structp lib, png_bytep out, size_t n_bytes)
{
    png_file *f = png_get_io_ptr(lib);
    if ((int64_t)n_bytes > f->file->n_bytes - f->at)
        png_error(lib, "the file ends too early");
    memcpy(out, f->file->bytes + f->at, n_bytes);
    f->at += (int64_t)n_bytes;
}

static mm_status fail(const png_file *f)
{
    return mm_fail(MM_E_FORMAT, "%s: corrupt PNG: %s", f->file->where,
                   f->message);
}

/** Ask the library for the pixels that Pillow gives. */
static mm_image_mode choose_mode(png_file *f)
{
    int depth = png_get_bit_depth(f->lib, f->info);
    int colour = png_get_color_type(f->lib, f->info);
    if (colour == PNG_COLOR_TYPE_PALETTE) {
        png_set_packing(f->lib);
        return MM_IMAGE_PALETTE;
    }
    if (colour == PNG_COLOR_TYPE_GRAY && depth == 16) {
        png_set_swap(f->lib);
        return MM_IMAGE_GREY_16;
    }
    if (colour == PNG_COLOR_TYPE_GRAY) {
        png_set_expand_gray_1_2_4_to_8(f->lib);
        return depth == 1 ? MM_IMAGE_BILEVEL : MM_IMAGE_GREY;
    }
    /* The high bytes, not rounded. */
    png_set_strip_16(f->lib);
    if (colour == PNG_COLOR_TYPE_RGB)
        return MM_IMAGE_RGB;
    if (colour == PNG_COLOR_TYPE_GRAY_ALPHA && depth == 8)
        return MM_IMAGE_GREY_ALPHA;
    if (colour == PNG_COLOR_TYPE_GRAY_ALPHA)
        png_set_gray_to_rgb(f->lib);
    return MM_IMAGE_RGBA;
}

/* Entries that the file leaves out are grey, as in Pillow. */
static void read_palette(png_file *f, uint8_t *palette)
{
    png_colorp colours = NULL;
    int n_colours = 0;
    for (int i = 0; i < 256 * 3; i++)
        palette[i] = (uint8_t)(i / 3);
    png_get_PLTE(f->lib, f->info, &colours, &n_colours);
    for (int i = 0; i < n_colours; i++) {
        palette[3 * i] = colours[i].red;
        palette[3 * i + 1] = colours[i].green;
        palette[3 * i + 2] = colours[i].blue;
    }
}

static mm_status read_header(png_file *f, mm_image_decoder *decoder,
                             mm_image *image)
{
    if (setjmp(png_jmpbuf(f->lib)))
        return fail(f);
    png_set_read_fn(f->lib, f, on_read);
    png_set_user_limits(f->lib, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_crc_action(f->lib, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    /* Texts, profiles and the like are not even inflated. Transparency is not
     * among them, but without png_set_tRNS_to_alpha it changes nothing. */
    png_set_keep_unknown_chunks(f->lib, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(f->lib, f->info);

    int64_t width = png_get_image_width(f->lib, f->info);
    int64_t height = png_get_image_height(f->lib, f->info);
    int64_t bits = png_get_bit_depth(f->lib, f->info) *
                   (int64_t)png_get_channels(f->lib, f->info);
    mm_image_mode mode = choose_mode(f);
    f->n_passes = png_set_interlace_handling(f->lib);
    if (mode == MM_IMAGE_PALETTE)
        read_palette(f, decoder->palette);
    if ((double)width * (double)height * (double)bits / 8.0 >
        (double)f->file->n_bytes * (double)most_expansion)
        return mm_fail(MM_E_FORMAT,
                       "%s: corrupt PNG: %lld bytes cannot hold %lld x %lld "
                       "pixels",
                       f->file->where, (long long)f->file->n_bytes,
                       (long long)width, (long long)height);
    return mm_image_make_room(decoder, f->file, width, height, mode, image,
                              &f->pixels);
}

static mm_status read_pixels(png_file *f, const mm_image *image)
{
    if (setjmp(png_jmpbuf(f->lib)))
        return fail(f);
    png_read_update_info(f->lib, f->info);
    int64_t row_bytes = image->width * image->channels;
    MM_ASSERT(png_get_rowbytes(f->lib, f->info) == (size_t)row_bytes);
    for (int pass = 0; pass < f->n_passes; pass++)
        for (int64_t y = 0; y < image->height; y++)
            png_read_row(f->lib, f->pixels + y * row_bytes, NULL);
    /* The rest, so that its checksums are compared. */
    png_read_end(f->lib, NULL);
    return MM_OK;
}

mm_status mm_image_decode_png(mm_image_decoder *decoder,
                              const mm_image_file *file, mm_image *image)
{
    png_file f = {.file = file};
    mm_status st;
    f.lib =
        png_create_read_struct(PNG_LIBPNG_VER_STRING, &f, on_error, on_warning);
    if (f.lib)
        f.info = png_create_info_struct(f.lib);
    if (f.info) {
        st = read_header(&f, decoder, image);
        if (st == MM_OK)
            st = read_pixels(&f, image);
    } else {
        st =
            mm_fail(MM_E_MEMORY, "%s: no memory to decode images", file->where);
    }
    png_destroy_read_struct(&f.lib, &f.info, NULL);
    return st;
}
