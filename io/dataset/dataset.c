/* The parts of a data set that readers fill in: pixels in memory, shapes,
 * labels. */

#include "io/dataset/dataset_reader.h"

#include <stdlib.h>

/* Storage of pixels that were read into memory. */
typedef struct pixel_blocks {
    uint8_t *train, *test;
} pixel_blocks;

static void release_pixels(void *storage)
{
    pixel_blocks *blocks = storage;
    free(blocks->train);
    free(blocks->test);
    free(blocks);
}

mm_status mm_dataset_keep_pixels(mm_dataset *dataset, uint8_t *train,
                                 uint8_t *test)
{
    pixel_blocks *blocks = malloc(sizeof *blocks);
    if (!blocks) {
        free(train);
        free(test);
        return mm_fail(MM_E_MEMORY, "%s: no memory to open it", dataset->name);
    }
    *blocks = (pixel_blocks){train, test};
    dataset->storage = blocks;
    dataset->release = release_pixels;
    dataset->train.pixels = train;
    dataset->test.pixels = test;
    return MM_OK;
}

mm_status mm_half_set_shape(mm_half *half, const char *path, const char *array,
                            int n_dims, const int64_t *shape)
{
    int64_t channels = n_dims == 4 ? shape[3] : 1, n_bytes;
    if (n_dims < 3 || n_dims > 4 || (channels != 1 && channels != 3))
        return mm_fail(MM_E_FORMAT,
                       "%s: images in %s must be [N, H, W] or [N, H, W, 3]",
                       path, array);
    for (int i = 1; i < 3; i++)
        if (shape[i] < 1 || shape[i] > MM_MAX_SIDE)
            return mm_fail(MM_E_FORMAT,
                           "%s: images in %s have a side of %lld pixels", path,
                           array, (long long)shape[i]);
    if (shape[0] < 0 || __builtin_mul_overflow(
                            shape[0], shape[1] * shape[2] * channels, &n_bytes))
        return mm_fail(MM_E_FORMAT, "%s: %s has an impossible shape", path,
                       array);
    half->n_images = shape[0];
    half->height = shape[1];
    half->width = shape[2];
    half->channels = (int)channels;
    return MM_OK;
}

int64_t mm_half_n_bytes(const mm_half *half)
{
    return half->n_images * half->height * half->width * half->channels;
}

mm_status mm_labels_narrow(const char *path, const char *array,
                           const int64_t *wide, int64_t n, int32_t **narrow)
{
    int32_t *labels = malloc((size_t)n * sizeof *labels + 1);
    if (!labels)
        return mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, array);
    for (int64_t i = 0; i < n; i++) {
        if (wide[i] < 0 || wide[i] >= MM_MAX_CLASSES) {
            free(labels);
            return mm_fail(MM_E_VALUE, "%s: %s[%lld] is %lld, not in [0, %d)",
                           path, array, (long long)i, (long long)wide[i],
                           MM_MAX_CLASSES);
        }
        labels[i] = (int32_t)wide[i];
    }
    *narrow = labels;
    return MM_OK;
}

static void free_half(mm_half *half)
{
    free(half->offsets);
    free(half->paths);
    free(half->path_starts);
    free(half->labels);
    free(half->domains);
}

void mm_dataset_close(mm_dataset **dataset)
{
    mm_dataset *d = *dataset;
    if (!d)
        return;
    if (d->release)
        d->release(d->storage);
    free_half(&d->train);
    if (!d->same_halves)
        free_half(&d->test);
    free(d->class_names);
    free(d->domain_names);
    free(d->note);
    free(d->name);
    free(d);
    *dataset = NULL;
}
