/* Decodes JPEG by libjpeg; a warning of the library counts as an error unless
 * it is harmless. */

#include "io/image/image_decoder.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum {
    ROWS = 16,       /* handed to the library at once                        */
    MOST_SCANS = 500 /* encoders write about ten; each may cost a whole pass */
};

/* A Huffman-coded block of 64 pixels has one bit at least. */
static const int64_t most_pixels_per_byte = 8 * 64;

typedef struct jpeg_file {
    struct jpeg_decompress_struct lib;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    char message[JMSG_LENGTH_MAX];
    uint8_t *pixels;
} jpeg_file;

_Noreturn static void stop(j_common_ptr lib)
{
    jpeg_file *f = lib->client_data;
    lib->err->format_message(lib, f->message);
    longjmp(f->failed, 1);
}

/** Is a warning of the library about something that leaves the pixels right? */
static bool is_harmless(const struct jpeg_error_mgr *errors)
{
    switch (errors->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
        return true;
    case JWRN_EXTRANEOUS_DATA:
        /* Bytes behind the last pixel. Real data sets have such files, and
         * every reader takes them. */
        return errors->msg_parm.i[1] == JPEG_EOI;
    default:
        return false;
    }
}

/* The library would go on with grey or repeated pixels. */
static void on_message(j_common_ptr lib, int level)
{
    if (level < 0 && !is_harmless(lib->err))
        stop(lib);
}

static void print_nothing(j_common_ptr lib)
{
    (void)lib;
}

static void limit_scans(j_common_ptr lib)
{
    jpeg_file *f = lib->client_data;
    if (f->lib.input_scan_number <= MOST_SCANS)
        return;
    snprintf(f->message, sizeof f->message, "more than %d scans", MOST_SCANS);
    longjmp(f->failed, 1);
}

static mm_status fail(const jpeg_file *f, const mm_image_file *file)
{
    static const char prefix[] = "Corrupt JPEG data: ";
    const char *message = f->message;
    if (!strncmp(message, prefix, sizeof prefix - 1))
        message += sizeof prefix - 1;
    if (f->errors.msg_code == JERR_OUT_OF_MEMORY)
        return mm_fail(MM_E_MEMORY, "%s: no memory to decode this JPEG",
                       file->where);
    return mm_fail(MM_E_FORMAT, "%s: corrupt JPEG: %s", file->where, message);
}

/** Up to the first scan; chooses what the library shall give. */
static mm_status read_header(jpeg_file *f, mm_image_decoder *decoder,
                             const mm_image_file *file, mm_image *image)
{
    struct jpeg_decompress_struct *lib = &f->lib;
    mm_image_mode mode;
    if (setjmp(f->failed))
        return fail(f, file);
    jpeg_create_decompress(lib);
    lib->progress = &f->progress;
    jpeg_mem_src(lib, file->bytes, (unsigned long)file->n_bytes);
    jpeg_read_header(lib, TRUE);
    switch (lib->num_components) {
    case 1:
        lib->out_color_space = JCS_GRAYSCALE;
        mode = MM_IMAGE_GREY;
        break;
    case 3:
        lib->out_color_space = JCS_RGB;
        mode = MM_IMAGE_RGB;
        break;
    case 4:
        lib->out_color_space = JCS_CMYK;
        mode = MM_IMAGE_CMYK;
        break;
    default:
        return mm_fail(MM_E_FORMAT,
                       "%s: JPEG of %d components; 1, 3 and 4 are known",
                       file->where, lib->num_components);
    }
    int64_t n_pixels = (int64_t)lib->image_width * lib->image_height;
    if (!lib->arith_code && n_pixels / most_pixels_per_byte > file->n_bytes)
        return mm_fail(MM_E_FORMAT,
                       "%s: corrupt JPEG: %lld bytes cannot hold %u x %u "
                       "pixels",
                       file->where, (long long)file->n_bytes, lib->image_width,
                       lib->image_height);
    return mm_image_make_room(decoder, file, lib->image_width,
                              lib->image_height, mode, image, &f->pixels);
}

static mm_status read_pixels(jpeg_file *f, const mm_image_file *file,
                             const mm_image *image)
{
    struct jpeg_decompress_struct *lib = &f->lib;
    if (setjmp(f->failed))
        return fail(f, file);
    jpeg_start_decompress(lib);
    size_t row_bytes = (size_t)(image->width * image->channels);
    while (lib->output_scanline < lib->output_height) {
        JSAMPROW rows[ROWS];
        for (unsigned i = 0; i < ROWS; i++)
            rows[i] = f->pixels + (lib->output_scanline + i) * row_bytes;
        unsigned left = lib->output_height - lib->output_scanline;
        jpeg_read_scanlines(lib, rows, left < ROWS ? left : ROWS);
    }
    /* Also reads on to the file's end mark, so that none may miss. */
    jpeg_finish_decompress(lib);
    return MM_OK;
}

mm_status mm_image_decode_jpeg(mm_image_decoder *decoder,
                               const mm_image_file *file, mm_image *image)
{
    /* A fresh object for each file: an old one keeps its tables, and a file
     * without tables of its own would use the previous image's. */
    jpeg_file *f = calloc(1, sizeof *f);
    if (!f)
        return mm_fail(MM_E_MEMORY, "%s: no memory to decode images",
                       file->where);
    f->lib.err = jpeg_std_error(&f->errors);
    f->lib.client_data = f;
    f->errors.error_exit = stop;
    f->errors.emit_message = on_message;
    f->errors.output_message = print_nothing;
    f->progress.progress_monitor = limit_scans;
    mm_status st = read_header(f, decoder, file, image);
    if (st == MM_OK)
        st = read_pixels(f, file, image);
    if (st == MM_OK && image->mode == MM_IMAGE_CMYK) {
        /* Adobe stores the inverse; Pillow takes every file for Adobe's. */
        int64_t n_bytes = image->width * image->height * 4;
        for (int64_t i = 0; i < n_bytes; i++)
            f->pixels[i] ^= 0xFF;
    }
    jpeg_destroy_decompress(&f->lib);
    free(f);
    return st;
}
