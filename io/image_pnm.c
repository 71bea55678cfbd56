/*
 * PBM, PGM and PPM, read here and not by a library: of those that Debian has,
 * netpbm's ends the process on bad input, Leptonica's and stb_image leave
 * samples unscaled or refuse most largest values, and GraphicsMagick, FFmpeg
 * and the like bring a hundred other formats along.
 */
#include "io/image_impl.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { LONGEST_NUMBER = 10, LARGEST_SAMPLE = 65535 };

/** A file that is being read, and what its header said. */
typedef struct pnm_file {
    const mm_image_file *file;
    int64_t at;
    char kind; /* '1' to '6' */
    int64_t width, height, largest;
} pnm_file;

static mm_status fail(const pnm_file *f, const char *what)
{
    return mm_fail(MM_E_FORMAT, "%s: corrupt P%c image: %s", f->file->where,
                   f->kind, what);
}

static bool is_plain(const pnm_file *f)
{
    return f->kind <= '3';
}

static bool is_bilevel(const pnm_file *f)
{
    return f->kind == '1' || f->kind == '4';
}

static bool is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/** The next byte outside comments, or -1; a comment takes its line's end with
 * it, so that it may stand within a number. */
static int next_byte(pnm_file *f)
{
    const mm_image_file *in = f->file;
    while (f->at < in->n_bytes && in->bytes[f->at] == '#') {
        while (f->at < in->n_bytes && in->bytes[f->at] != '\n' &&
               in->bytes[f->at] != '\r')
            f->at++;
        f->at++;
    }
    return f->at < in->n_bytes ? in->bytes[f->at++] : -1;
}

/** A decimal number and the one byte of space behind it. */
static mm_status read_number(pnm_file *f, int64_t *number)
{
    int c = next_byte(f), n_digits = 0;
    while (is_space(c))
        c = next_byte(f);
    if (c < 0)
        return fail(f, "it ends too early");
    for (*number = 0; c >= '0' && c <= '9'; c = next_byte(f)) {
        if (++n_digits > LONGEST_NUMBER)
            return fail(f, "a number of more than 10 digits");
        *number = *number * 10 + (c - '0');
    }
    if (n_digits == 0 || (c >= 0 && !is_space(c)))
        return fail(f, "a byte that is neither digit nor space in a number");
    return MM_OK;
}

static mm_status read_header(pnm_file *f)
{
    if (!is_space(next_byte(f)))
        return fail(f, "no space after its first two bytes");
    MM_TRY(read_number(f, &f->width));
    MM_TRY(read_number(f, &f->height));
    f->largest = 1;
    if (!is_bilevel(f))
        MM_TRY(read_number(f, &f->largest));
    if (f->largest < 1 || f->largest > LARGEST_SAMPLE)
        return fail(f, "its largest value is not in 1 to 65535");
    return MM_OK;
}

/** Bytes of one row of a raw raster. */
static int64_t raw_row_bytes(const pnm_file *f)
{
    if (is_bilevel(f))
        return (f->width + 7) / 8;
    int64_t channels = f->kind == '6' ? 3 : 1;
    return f->width * channels * (f->largest > 255 ? 2 : 1);
}

/* Before memory is taken: is what is left long enough? */
static mm_status check_length(const pnm_file *f)
{
    int64_t left = f->file->n_bytes - f->at;
    int64_t least_row = f->width; /* plain: a byte a pixel */
    if (!is_plain(f))
        least_row = raw_row_bytes(f);
    if (least_row > 0 && f->height > left / least_row)
        return fail(f, "fewer bytes than its size needs");
    return MM_OK;
}

static mm_status read_plain_bits(pnm_file *f, uint8_t *out)
{
    for (int64_t i = 0; i < f->width * f->height; i++) {
        int c = next_byte(f);
        while (is_space(c))
            c = next_byte(f);
        if (c != '0' && c != '1')
            return fail(f, c < 0 ? "it ends too early"
                                 : "a pixel that is neither 0 nor 1");
        out[i] = c == '0' ? 255 : 0;
    }
    return MM_OK;
}

static void read_raw_bits(const pnm_file *f, uint8_t *out)
{
    const uint8_t *in = f->file->bytes + f->at;
    for (int64_t y = 0; y < f->height; y++, in += raw_row_bytes(f))
        for (int64_t x = 0; x < f->width; x++)
            *out++ = in[x / 8] & (0x80 >> x % 8) ? 0 : 255;
}

/** Pillow's scaling to `most`: a quotient of doubles, halves to even. */
static int64_t scaled(const pnm_file *f, int64_t sample, int64_t most)
{
    double exact = (double)sample / (double)f->largest * (double)most;
    int64_t rounded = (int64_t)nearbyint(exact);
    return rounded < most ? rounded : most;
}

static mm_status read_sample(pnm_file *f, int64_t *sample)
{
    if (is_plain(f)) {
        MM_TRY(read_number(f, sample));
        if (*sample > f->largest)
            return fail(f, "a sample above its largest value");
        return MM_OK;
    }
    const uint8_t *in = f->file->bytes + f->at;
    *sample = f->largest > 255 ? in[0] << 8 | in[1] : in[0];
    f->at += f->largest > 255 ? 2 : 1;
    return MM_OK;
}

static mm_status read_samples(pnm_file *f, const mm_image *image, uint8_t *out)
{
    bool wide = image->mode == MM_IMAGE_GREY_16;
    int64_t n_samples =
        image->width * image->height * (wide ? 1 : image->channels);
    if (!is_plain(f) && f->largest == 255) {
        memcpy(out, f->file->bytes + f->at, (size_t)n_samples);
        return MM_OK;
    }
    for (int64_t i = 0; i < n_samples; i++) {
        int64_t sample;
        MM_TRY(read_sample(f, &sample));
        int64_t value = scaled(f, sample, wide ? LARGEST_SAMPLE : 255);
        *out++ = (uint8_t)value;
        if (wide)
            *out++ = (uint8_t)(value >> 8);
    }
    return MM_OK;
}

static mm_image_mode mode_of(const pnm_file *f)
{
    if (is_bilevel(f))
        return MM_IMAGE_BILEVEL;
    if (f->kind == '3' || f->kind == '6')
        return MM_IMAGE_RGB;
    return f->largest > 255 ? MM_IMAGE_GREY_16 : MM_IMAGE_GREY;
}

mm_status mm_image_decode_pnm(mm_image_decoder *decoder,
                              const mm_image_file *file, mm_image *image)
{
    pnm_file f = {.file = file, .at = 2, .kind = (char)file->bytes[1]};
    uint8_t *pixels;
    MM_TRY(read_header(&f));
    MM_TRY(check_length(&f));
    MM_TRY(mm_image_begin(decoder, file, f.width, f.height, mode_of(&f), image,
                          &pixels));
    if (f.kind == '1')
        return read_plain_bits(&f, pixels);
    if (f.kind == '4')
        read_raw_bits(&f, pixels);
    else
        return read_samples(&f, image, pixels);
    return MM_OK;
}
