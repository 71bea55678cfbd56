/* PBM, PGM and PPM, by netpbm's library, in Pillow's modes and scaling. */
#include "io/image/image_decoder.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h> /* pam.h needs it */
#include <string.h>

#include <pam.h>

/* The library keeps the place to jump to after an error, and the function that
 * gets its messages, for the whole process: one file at a time. */
static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;
static char library_message[200];

/** A file that is being read. */
typedef struct pnm_file {
    const mm_image_file *file;
    int64_t at; /* of a plain one */
    FILE *stream;
    struct pam header;
    tuple *row;
    jmp_buf failed;
} pnm_file;

static char kind_of(const pnm_file *f)
{
    return (char)f->file->bytes[1];
}

static mm_status fail(const pnm_file *f, const char *what)
{
    return mm_fail(MM_E_FORMAT, "%s: corrupt P%c image: %s", f->file->where,
                   kind_of(f), what);
}

static void keep_message(const char *message)
{
    snprintf(library_message, sizeof library_message, "%s", message);
}

static void print_nothing(const char *message)
{
    (void)message;
}

/**
 * A plain file's text without comments, which may stand within a number (the
 * library takes them for its end), and with a last line end, without which the
 * library does not see the last number's.
 */
static ssize_t read_text(void *cookie, char *out, size_t most_bytes)
{
    pnm_file *f = cookie;
    const uint8_t *in = f->file->bytes;
    int64_t n_bytes = f->file->n_bytes;
    size_t n = 0;
    for (; n < most_bytes && f->at <= n_bytes; f->at++) {
        if (f->at == n_bytes)
            out[n++] = '\n';
        else if (in[f->at] != '#')
            out[n++] = (char)in[f->at];
        else
            while (f->at + 1 < n_bytes && in[f->at] != '\n' &&
                   in[f->at] != '\r')
                f->at++;
    }
    return (ssize_t)n;
}

static mm_status open_stream(pnm_file *f)
{
    if (kind_of(f) <= '3')
        f->stream =
            fopencookie(f, "rb", (cookie_io_functions_t){.read = read_text});
    else
        f->stream =
            fmemopen((void *)f->file->bytes, (size_t)f->file->n_bytes, "rb");
    return f->stream ? MM_OK
                     : mm_fail_errno("%s: cannot be read from memory",
                                     f->file->where);
}

static bool is_bilevel(const pnm_file *f)
{
    return kind_of(f) == '1' || kind_of(f) == '4';
}

/* Before memory is taken: is the file long enough? */
static mm_status check_length(const pnm_file *f)
{
    const struct pam *h = &f->header;
    int64_t least_row = h->width; /* plain: a byte per pixel */
    if (kind_of(f) == '4')
        least_row = (least_row + 7) / 8;
    else if (kind_of(f) > '4')
        least_row *= (int64_t)h->depth * h->bytes_per_sample;
    if (h->height > f->file->n_bytes / least_row)
        return fail(f, "fewer bytes than its size needs");
    return MM_OK;
}

static mm_image_mode mode_of(const pnm_file *f)
{
    if (is_bilevel(f))
        return MM_IMAGE_BILEVEL;
    if (f->header.depth == 3)
        return MM_IMAGE_RGB;
    return f->header.maxval > 255 ? MM_IMAGE_GREY_16 : MM_IMAGE_GREY;
}

/** Pillow's scaling to `most`: a quotient of doubles, halves to even. */
static unsigned scaled(sample value, sample largest, unsigned most)
{
    return (unsigned)nearbyint((double)value / (double)largest * most);
}

static uint8_t *write_row(const pnm_file *f, bool wide, uint8_t *out)
{
    const struct pam *h = &f->header;
    for (int x = 0; x < h->width; x++)
        for (unsigned c = 0; c < h->depth; c++) {
            sample s = f->row[x][c];
            unsigned value = !wide && h->maxval == 255
                                 ? (unsigned)s
                                 : scaled(s, h->maxval, wide ? 65535 : 255);
            *out++ = (uint8_t)value;
            if (wide)
                *out++ = (uint8_t)(value >> 8);
        }
    return out;
}

/** What may end in a jump. */
static mm_status read_file(pnm_file *f, mm_image_decoder *decoder,
                           mm_image *image)
{
    uint8_t *pixels;
    if (setjmp(f->failed))
        return fail(f, library_message);
    pm_setjmpbuf(&f->failed);
    pm_setusererrormsgfn(keep_message);
    pm_setusermessagefn(print_nothing);
    pnm_readpaminit(f->stream, &f->header, sizeof f->header);
    MM_TRY(check_length(f));
    MM_TRY(mm_image_make_room(decoder, f->file, f->header.width,
                              f->header.height, mode_of(f), image, &pixels));
    f->row = pnm_allocpamrow(&f->header);
    bool wide = image->mode == MM_IMAGE_GREY_16;
    for (int y = 0; y < f->header.height; y++) {
        pnm_readpamrow(&f->header, f->row);
        pixels = write_row(f, wide, pixels);
    }
    return MM_OK;
}

mm_status mm_image_decode_pnm(mm_image_decoder *decoder,
                              const mm_image_file *file, mm_image *image)
{
    pnm_file f = {.file = file};
    MM_TRY(open_stream(&f));
    pthread_mutex_lock(&library);
    mm_status st = read_file(&f, decoder, image);
    pm_setjmpbuf(NULL);
    pthread_mutex_unlock(&library);
    if (f.row)
        pnm_freepamrow(f.row);
    fclose(f.stream);
    return st;
}
