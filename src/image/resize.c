/* Resizing images of every mode as Pillow does (alpha, palettes, CMYK, 16
 * bits), with an RGB result. */

#include "src/image/resize.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct mm_resizer {
    mm_resampler *resampler;
    uint8_t *own; /* the window in the image's own mode, or columns' indices */
    int64_t own_bytes;
    uint8_t *premultiplied; /* the box with alpha multiplied in */
    int64_t premultiplied_bytes;
};

mm_status mm_resizer_create(mm_resizer **resizer)
{
    mm_resizer *r = calloc(1, sizeof *r);
    if (!r)
        return mm_fail(MM_E_MEMORY, "no memory to resize images");
    mm_status st = mm_resampler_create(&r->resampler);
    if (st != MM_OK)
        mm_resizer_destroy(&r);
    *resizer = r;
    return st;
}

void mm_resizer_destroy(mm_resizer **resizer)
{
    if (!*resizer)
        return;
    mm_resampler_destroy(&(*resizer)->resampler);
    free((*resizer)->own);
    free((*resizer)->premultiplied);
    free(*resizer);
    *resizer = NULL;
}

static mm_status reserve(uint8_t **buffer, int64_t *held_bytes, int64_t n_bytes)
{
    if (n_bytes <= *held_bytes)
        return MM_OK;
    free(*buffer);
    *buffer = malloc((size_t)n_bytes);
    *held_bytes = *buffer ? n_bytes : 0;
    return *buffer ? MM_OK
                   : mm_fail(MM_E_MEMORY,
                             "no memory for %lld bytes to resize an image",
                             (long long)n_bytes);
}

static uint8_t clamped(int value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/** a b / 255, rounded, as Pillow's MULDIV255. */
static int product(int a, int b)
{
    int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

static void spread(const uint8_t *grey, int64_t n, uint8_t *out)
{
    for (int64_t i = 0; i < n; i++)
        out[3 * i] = out[3 * i + 1] = out[3 * i + 2] = grey[i];
}

/** Divide alpha out of n pixels and drop it: L or RGB. */
static void divide_alpha(const uint8_t *in, int64_t n, int channels,
                         uint8_t *out)
{
    for (int64_t i = 0; i < n; i++, in += channels) {
        int alpha = in[channels - 1];
        for (int c = 0; c < 3; c++) {
            int v = in[channels == 4 ? c : 0];
            *out++ = alpha == 0 ? (uint8_t)v : clamped(255 * v / alpha);
        }
    }
}

static void drop_alpha(const uint8_t *in, int64_t n, int channels, uint8_t *out)
{
    for (int64_t i = 0; i < n; i++, in += channels)
        for (int c = 0; c < 3; c++)
            *out++ = in[channels == 4 ? c : 0];
}

static void ink_to_light(const uint8_t *cmyk, int64_t n, uint8_t *out)
{
    for (int64_t i = 0; i < n; i++, cmyk += 4) {
        int light = 255 - cmyk[3];
        for (int c = 0; c < 3; c++)
            *out++ = clamped(light - product(cmyk[c], light));
    }
}

/** The box of an image, without its pixels' meaning. */
static mm_pixels pixels_of(const mm_image *image, const mm_box *box)
{
    int64_t stride = image->width * image->channels;
    return (mm_pixels){
        .first =
            image->pixels + box->top * stride + box->left * image->channels,
        .stride_bytes = stride,
        .height = box->height,
        .width = box->width,
        .channels = image->channels,
    };
}

/* Pillow copies an image that has the size; alpha is not multiplied in then. */
static bool is_copied(const mm_box *box, const mm_window *w)
{
    return box->height == w->full_height && box->width == w->full_width;
}

static mm_status resize_alpha(mm_resizer *r, const mm_image *image,
                              const mm_box *box, const mm_window *w,
                              uint8_t *out)
{
    mm_pixels pixels = pixels_of(image, box);
    int channels = image->channels;
    int64_t row_bytes = box->width * channels, n = w->height * w->width;
    if (is_copied(box, w)) {
        MM_TRY(mm_resample(r->resampler, &pixels, w, r->own));
        drop_alpha(r->own, n, channels, out);
        return MM_OK;
    }
    MM_TRY(reserve(&r->premultiplied, &r->premultiplied_bytes,
                   box->height * row_bytes));
    uint8_t *to = r->premultiplied;
    for (int64_t y = 0; y < box->height; y++) {
        const uint8_t *in = pixels.first + y * pixels.stride_bytes;
        for (int64_t x = 0; x < box->width; x++, in += channels) {
            int alpha = in[channels - 1];
            for (int c = 0; c < channels - 1; c++)
                *to++ = (uint8_t)product(in[c], alpha);
            *to++ = (uint8_t)alpha;
        }
    }
    pixels.first = r->premultiplied;
    pixels.stride_bytes = row_bytes;
    MM_TRY(mm_resample(r->resampler, &pixels, w, r->own));
    divide_alpha(r->own, n, channels, out);
    return MM_OK;
}

/**
 * The input of each of `n` outputs from `lo` on, or -1 for none. Pillow adds up
 * the step, so the sum's rounding errors belong to the result.
 */
static void nearest(int64_t n_in, int64_t n_out, int64_t lo, int64_t n,
                    int64_t *inputs)
{
    double step = (double)n_in / (double)n_out, at = step * 0.5;
    MM_ASSERT(n >= 1);
    for (int64_t i = 0; i < lo; i++)
        at += step;
    for (int64_t i = 0; i < n; i++, at += step)
        inputs[i] = (int64_t)at < n_in ? (int64_t)at : -1;
}

static void write_index(const mm_image *image, uint8_t index, uint8_t *out)
{
    if (image->mode == MM_IMAGE_PALETTE)
        memcpy(out, image->palette + 3 * index, 3);
    else
        memset(out, index, 3);
}

static mm_status resize_nearest(mm_resizer *r, const mm_image *image,
                                const mm_box *box, const mm_window *w,
                                uint8_t *out)
{
    mm_pixels pixels = pixels_of(image, box);
    MM_TRY(reserve(&r->own, &r->own_bytes,
                   (w->width + w->height) * (int64_t)sizeof(int64_t)));
    int64_t *columns = (int64_t *)(void *)r->own, *rows = columns + w->width;
    nearest(box->width, w->full_width, w->left, w->width, columns);
    nearest(box->height, w->full_height, w->top, w->height, rows);
    for (int64_t y = 0; y < w->height; y++) {
        const uint8_t *in = pixels.first + rows[y] * pixels.stride_bytes;
        for (int64_t x = 0; x < w->width; x++, out += 3)
            write_index(
                image, rows[y] < 0 || columns[x] < 0 ? 0 : in[columns[x]], out);
    }
    return MM_OK;
}

static mm_status resize_wide(mm_resizer *r, const mm_image *image,
                             const mm_box *box, const mm_window *w,
                             uint8_t *out)
{
    mm_pixels pixels = pixels_of(image, box);
    int64_t n = w->height * w->width;
    MM_TRY(reserve(&r->own, &r->own_bytes, n * (int64_t)sizeof(int32_t)));
    int32_t *values = (int32_t *)(void *)r->own;
    MM_TRY(mm_resample_wide(r->resampler, &pixels, w, values));
    for (int64_t i = 0; i < n; i++)
        memset(out + 3 * i, clamped(values[i]), 3);
    return MM_OK;
}

mm_status mm_resize(mm_resizer *r, const mm_image *image, const mm_box *box,
                    const mm_window *w, uint8_t *out)
{
    mm_pixels pixels = pixels_of(image, box);
    int64_t n = w->height * w->width;
    switch (image->mode) {
    case MM_IMAGE_RGB:
        return mm_resample(r->resampler, &pixels, w, out);
    case MM_IMAGE_PALETTE:
    case MM_IMAGE_BILEVEL:
        return resize_nearest(r, image, box, w, out);
    case MM_IMAGE_GREY_16:
        return resize_wide(r, image, box, w, out);
    case MM_IMAGE_GREY:
    case MM_IMAGE_GREY_ALPHA:
    case MM_IMAGE_RGBA:
    case MM_IMAGE_CMYK:
        break;
    }
    MM_TRY(reserve(&r->own, &r->own_bytes, n * image->channels));
    if (image->mode == MM_IMAGE_GREY_ALPHA || image->mode == MM_IMAGE_RGBA)
        return resize_alpha(r, image, box, w, out);
    MM_TRY(mm_resample(r->resampler, &pixels, w, r->own));
    if (image->mode == MM_IMAGE_GREY)
        spread(r->own, n, out);
    else
        ink_to_light(r->own, n, out);
    return MM_OK;
}
