/*
 * Decodes and transforms images for the tests in Python beside it: reads
 * requests from stdin, writes replies to stdout.
 *
 * A request is ten int64 (what, size, mode, height, width, n_bytes and four
 * arguments), then n_bytes bytes: an image file where mode is -1, else pixels,
 * with the palette behind them. What: 0 evaluation; 1 crop with left, top,
 * width, height; 2 training with seed, epoch, sample, unused; 3 only decode.
 *
 * A reply is two int64 (the status and n_bytes), then n_bytes bytes: the
 * transform's, or mode, height, width, channels as int64 and the pixels and the
 * palette, or what failed.
 */

#include "io/image/image.h"
#include "src/image/transform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVALUATION, CROP, TRAINING, DECODE, PALETTE_BYTES = 256 * 3 };

typedef struct request {
    int64_t what, size, mode, height, width, n_bytes, arguments[4];
} request;

typedef struct reply {
    int64_t status, n_bytes;
} reply;

/* One decoder, and one transform for all requests of a size: their scratch is
 * used again. */
typedef struct state {
    mm_image_decoder *decoder;
    mm_transform *transform;
    int64_t size;
} state;

static mm_status find_image(const state *s, const request *r,
                            const uint8_t *bytes, mm_image *image)
{
    if (r->mode < 0)
        return mm_image_decode(s->decoder, bytes, r->n_bytes, "image", image);
    int64_t n_pixels = r->height * r->width;
    *image = (mm_image){.pixels = bytes,
                        .height = r->height,
                        .width = r->width,
                        .mode = (mm_image_mode)r->mode};
    int64_t pixel_bytes = r->n_bytes;
    if (image->mode == MM_IMAGE_PALETTE) {
        pixel_bytes -= PALETTE_BYTES;
        image->palette = bytes + pixel_bytes;
    }
    image->channels = (int)(pixel_bytes / n_pixels);
    return MM_OK;
}

static mm_status transform_image(state *s, const request *r,
                                 const mm_image *image, uint8_t *out)
{
    const int64_t *a = r->arguments;
    if (s->size != r->size) {
        mm_transform_destroy(&s->transform);
        MM_TRY(mm_transform_create(r->size, &s->transform));
        s->size = r->size;
    }
    if (r->what == EVALUATION)
        return mm_transform_evaluation(s->transform, image, out);
    if (r->what == CROP)
        return mm_transform_crop(s->transform, image, a[0], a[1], a[2], a[3],
                                 out);
    return mm_transform_training(s->transform, image, (uint64_t)a[0], a[1],
                                 a[2], out);
}

static void write_all(const void *bytes, size_t n_bytes)
{
    if (fwrite(bytes, 1, n_bytes, stdout) != n_bytes)
        abort();
}

static void reply_failure(mm_status st)
{
    const char *message = mm_fail_message();
    reply head = {st, (int64_t)strlen(message)};
    write_all(&head, sizeof head);
    write_all(message, strlen(message));
}

static void reply_image(const mm_image *image)
{
    const int64_t about[] = {image->mode, image->height, image->width,
                             image->channels};
    size_t pixel_bytes =
        (size_t)(image->height * image->width * image->channels);
    size_t palette_bytes = image->palette ? PALETTE_BYTES : 0;
    reply head = {MM_OK, (int64_t)(sizeof about + pixel_bytes + palette_bytes)};
    write_all(&head, sizeof head);
    write_all(about, sizeof about);
    write_all(image->pixels, pixel_bytes);
    if (palette_bytes)
        write_all(image->palette, palette_bytes);
}

static void answer(state *s, const request *r)
{
    size_t n_out = (size_t)(r->size * r->size * 3);
    uint8_t *in = malloc((size_t)r->n_bytes), *out = malloc(n_out);
    mm_image image;
    if ((r->n_bytes && !in) || (n_out && !out) ||
        fread(in, 1, (size_t)r->n_bytes, stdin) != (size_t)r->n_bytes)
        abort();
    mm_status st = find_image(s, r, in, &image);
    if (st == MM_OK && r->what != DECODE)
        st = transform_image(s, r, &image, out);
    if (st != MM_OK) {
        reply_failure(st);
    } else if (r->what == DECODE) {
        reply_image(&image);
    } else {
        reply head = {MM_OK, (int64_t)n_out};
        write_all(&head, sizeof head);
        write_all(out, n_out);
    }
    free(in);
    free(out);
}

int main(void)
{
    state s = {NULL, NULL, 0};
    request r;
    if (mm_image_decoder_create(&s.decoder) != MM_OK)
        abort();
    while (fread(&r, sizeof r, 1, stdin) == 1)
        answer(&s, &r);
    mm_transform_destroy(&s.transform);
    mm_image_decoder_destroy(&s.decoder);
    return 0;
}
