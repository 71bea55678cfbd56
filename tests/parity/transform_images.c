/*
 * Transforms images for tests/parity/test_transform.py: reads requests from
 * stdin, writes the resulting bytes to stdout.
 *
 * A request is nine int64 (what, size, height, width, channels and four
 * arguments), then the pixels. What: 0 evaluation; 1 crop with left, top,
 * width, height; 2 training with seed, epoch, sample, unused.
 */

#include "src/tasks/transform.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct request {
    int64_t what, size, height, width, channels, arguments[4];
} request;

static mm_status transform_one(mm_transform *t, const request *r,
                               const mm_image *image, uint8_t *out)
{
    const int64_t *a = r->arguments;
    if (r->what == 0)
        return mm_transform_evaluation(t, image, out);
    if (r->what == 1)
        return mm_transform_crop(t, image, a[0], a[1], a[2], a[3], out);
    return mm_transform_training(t, image, (uint64_t)a[0], a[1], a[2], out);
}

/* One transform for all requests of a size: its scratch is used again. */
static mm_status answer(const request *r, mm_transform **t, int64_t *t_size)
{
    size_t n_in = (size_t)(r->height * r->width * r->channels);
    size_t n_out = (size_t)(r->size * r->size * 3);
    uint8_t *in = malloc(n_in), *out = malloc(n_out);
    mm_status st = MM_OK;
    if (!in || !out || fread(in, 1, n_in, stdin) != n_in) {
        st = mm_fail(MM_E_IO, "request without pixels");
        goto done;
    }
    if (*t_size != r->size) {
        mm_transform_destroy(t);
        MM_TRY_GOTO(st, done, mm_transform_create(r->size, t));
        *t_size = r->size;
    }
    mm_image image = {
        .pixels = in,
        .height = r->height,
        .width = r->width,
        .channels = (int)r->channels,
        .mode = r->channels == 3 ? MM_IMAGE_RGB : MM_IMAGE_GREY,
    };
    MM_TRY_GOTO(st, done, transform_one(*t, r, &image, out));
    if (fwrite(out, 1, n_out, stdout) != n_out)
        st = mm_fail_errno("stdout");
done:
    free(in);
    free(out);
    return st;
}

int main(void)
{
    mm_transform *t = NULL;
    int64_t t_size = 0;
    mm_status st = MM_OK;
    request r;
    while (st == MM_OK && fread(&r, sizeof r, 1, stdin) == 1)
        st = answer(&r, &t, &t_size);
    mm_transform_destroy(&t);
    if (st != MM_OK)
        fprintf(stderr, "transform_images: %s\n", mm_fail_message());
    return st != MM_OK;
}
