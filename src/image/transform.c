/* torchvision's transforms for evaluation (resize, centre crop) and for
 * training (random resized crop). */

#include "src/image/transform.h"

#include "src/base/rng.h"
#include "src/image/resize.h"

#include <math.h>
#include <stdlib.h>

/* Of a resized image before it is cropped; Pillow would make all of them. */
static const int64_t most_pixels = (int64_t)1 << 31;

struct mm_transform {
    int64_t size;
    mm_resizer *resizer;
};

mm_status mm_transform_create(int64_t size, mm_transform **transform)
{
    MM_ASSERT(size > 0);
    mm_transform *t = calloc(1, sizeof *t);
    if (!t)
        return mm_fail(MM_E_MEMORY, "no memory to transform images");
    t->size = size;
    mm_status st = mm_resizer_create(&t->resizer);
    if (st != MM_OK)
        mm_transform_destroy(&t);
    *transform = t;
    return st;
}

void mm_transform_destroy(mm_transform **transform)
{
    if (!*transform)
        return;
    mm_resizer_destroy(&(*transform)->resizer);
    free(*transform);
    *transform = NULL;
}

static mm_status check_image(const mm_image *image)
{
    if (image->height < 1 || image->width < 1)
        return mm_fail(MM_E_VALUE, "an image of %lld x %lld has no pixels",
                       (long long)image->height, (long long)image->width);
    return MM_OK;
}

/** torchvision's Resize: int(size * longer / shorter), a truncated quotient. */
static int64_t longer_side(int64_t size, int64_t longer, int64_t shorter)
{
    return (int64_t)((double)(size * longer) / (double)shorter);
}

/** torchvision's CenterCrop: int(round(rest / 2.0)), halves to even. */
static int64_t centred(int64_t full, int64_t part)
{
    return (int64_t)nearbyint((double)(full - part) / 2.0);
}

mm_status mm_transform_evaluation(mm_transform *t, const mm_image *image,
                                  uint8_t *out)
{
    MM_TRY(check_image(image));
    int64_t size = t->size, h = image->height, w = image->width;
    mm_window window = {
        .full_height = w <= h ? longer_side(size, h, w) : size,
        .full_width = w <= h ? size : longer_side(size, w, h),
        .height = size,
        .width = size,
    };
    window.top = centred(window.full_height, size);
    window.left = centred(window.full_width, size);
    if (window.full_height * window.full_width > most_pixels)
        return mm_fail(MM_E_VALUE,
                       "an image of %lld x %lld is too narrow to be resized",
                       (long long)h, (long long)w);
    mm_box whole = {0, 0, w, h};
    return mm_resize(t->resizer, image, &whole, &window, out);
}

mm_status mm_transform_crop(mm_transform *t, const mm_image *image,
                            int64_t left, int64_t top, int64_t width,
                            int64_t height, uint8_t *out)
{
    MM_TRY(check_image(image));
    MM_ASSERT(left >= 0 && width > 0 && left + width <= image->width);
    MM_ASSERT(top >= 0 && height > 0 && top + height <= image->height);
    mm_window window = {.full_height = t->size,
                        .full_width = t->size,
                        .height = t->size,
                        .width = t->size};
    mm_box box = {left, top, width, height};
    return mm_resize(t->resizer, image, &box, &window, out);
}

/** One image's random numbers in one epoch. */
typedef struct draws {
    mm_rng_key key;
    uint64_t sample, first, n;
} draws;

static double next_uniform(draws *d)
{
    return mm_rng_uniform(d->key, d->sample, d->first + d->n++);
}

/** Uniform in {0, ..., n - 1}. */
static int64_t next_below(draws *d, int64_t n)
{
    int64_t drawn = (int64_t)(next_uniform(d) * (double)n);
    return drawn < n ? drawn : n - 1;
}

/** torchvision's RandomResizedCrop.get_params. */
static mm_box random_box(draws *d, int64_t height, int64_t width)
{
    const double least_scale = 0.9, least_ratio = 3.0 / 4, most_ratio = 4.0 / 3;
    const double log_least = log(least_ratio), log_most = log(most_ratio);
    double area = (double)(height * width);
    for (int attempt = 0; attempt < 10; attempt++) {
        double target =
            area * (least_scale + (1.0 - least_scale) * next_uniform(d));
        double ratio =
            exp(log_least + (log_most - log_least) * next_uniform(d));
        int64_t w = (int64_t)nearbyint(sqrt(target * ratio));
        int64_t h = (int64_t)nearbyint(sqrt(target / ratio));
        if (0 < w && w <= width && 0 < h && h <= height) {
            int64_t top = next_below(d, height - h + 1);
            int64_t left = next_below(d, width - w + 1);
            return (mm_box){left, top, w, h};
        }
    }
    mm_box b = {0, 0, width, height};
    double ratio = (double)width / (double)height;
    if (ratio < least_ratio)
        b.height = (int64_t)nearbyint((double)width / least_ratio);
    else if (ratio > most_ratio)
        b.width = (int64_t)nearbyint((double)height * most_ratio);
    b.top = (height - b.height) / 2;
    b.left = (width - b.width) / 2;
    return b;
}

mm_status mm_transform_training(mm_transform *t, const mm_image *image,
                                uint64_t seed, int64_t epoch, int64_t sample,
                                uint8_t *out)
{
    MM_TRY(check_image(image));
    /* An epoch has 64 numbers per sample; ten attempts draw at most 22. */
    draws d = {mm_rng_key_of(seed, MM_RNG_AUGMENT), (uint64_t)sample,
               (uint64_t)epoch * 64, 0};
    mm_box b = random_box(&d, image->height, image->width);
    return mm_transform_crop(t, image, b.left, b.top, b.width, b.height, out);
}
