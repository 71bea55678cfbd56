#include "io/dataset/dataset_reader.h"

#include "comm/check_same.h"
#include "io/file.h"
#include "io/hdf5/hdf5_util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static void raise_to(const int32_t *labels, int64_t n, int *count)
{
    for (int64_t i = 0; labels && i < n; i++)
        if (labels[i] >= *count)
            *count = labels[i] + 1;
}

/* Either the number that the names give, or 1 + the largest number used. */
static mm_status settle(const mm_dataset *dataset, const char *what, int used,
                        char **names, int *count)
{
    if (!names)
        *count = used;
    if (used > *count)
        return mm_fail(MM_E_VALUE, "%s: %s %d is used, but there are %d names",
                       dataset->name, what, used - 1, *count);
    return MM_OK;
}

static mm_status count_classes(mm_dataset *dataset)
{
    const mm_half *train = &dataset->train, *test = &dataset->test;
    int n_classes = 0, n_domains = 1;
    if (train->n_images + test->n_images == 0)
        return mm_fail(MM_E_FORMAT, "%s holds no images", dataset->name);
    raise_to(train->labels, train->n_images, &n_classes);
    raise_to(test->labels, test->n_images, &n_classes);
    raise_to(train->domains, train->n_images, &n_domains);
    raise_to(test->domains, test->n_images, &n_domains);
    MM_TRY(settle(dataset, "label", n_classes, dataset->class_names,
                  &dataset->n_classes));
    return settle(dataset, "domain", n_domains, dataset->domain_names,
                  &dataset->n_domains);
}

static mm_status open_by_content(mm_comm *alone, const char *path,
                                 mm_dataset *dataset)
{
    (void)alone;
    struct stat info;
    if (stat(path, &info) != 0)
        return mm_fail_errno("cannot open %s", path);
    if (!S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "%s is no regular file", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", path);
    char start[4] = {0};
    bool is_hdf5 = mm_h5_is_file(fd);
    bool is_zip = pread(fd, start, 4, 0) == 4 && memcmp(start, "PK", 2) == 0;
    close(fd);
    if (is_hdf5)
        return mm_dataset_open_packed(path, dataset);
    if (is_zip)
        return mm_dataset_open_npz(path, dataset);
    return mm_fail(MM_E_FORMAT,
                   "%s is neither a packed data set (HDF5) nor .npz", path);
}

static mm_status open_idx(mm_comm *alone, const char *folder,
                          mm_dataset *dataset)
{
    (void)alone;
    return mm_dataset_open_idx(folder, dataset);
}

/* "photos/" is "photos" in messages and in paths below it. */
static char *without_slashes(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    return strndup(path, length);
}

/* What all readers leave to do. */
static mm_status finish(mm_dataset *d)
{
    MM_TRY(count_classes(d));
    d->train.what = d->same_halves ? "image" : "training image";
    d->test.what = "test image";
    if (d->same_halves)
        d->test = d->train;
    return MM_OK;
}

static mm_status open_dataset(mm_comm *comm, const char *path,
                              mm_status (*reader)(mm_comm *, const char *,
                                                  mm_dataset *),
                              mm_dataset **dataset)
{
    mm_dataset *d = calloc(1, sizeof *d);
    mm_status st = mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    *dataset = NULL;
    if (d)
        d->name = without_slashes(path);
    if (d && d->name)
        st = MM_OK;
    if (comm)
        st = mm_comm_agree(comm, st);
    if (st == MM_OK)
        st = reader(comm, d->name, d);
    if (st == MM_OK)
        st = finish(d);
    if (comm)
        st = mm_comm_agree(comm, st);
    if (st != MM_OK)
        mm_dataset_close(&d);
    *dataset = d;
    return st;
}

mm_status mm_dataset_file_open(const char *path, mm_dataset **dataset)
{
    return open_dataset(NULL, path, open_by_content, dataset);
}

mm_status mm_dataset_idx_open(const char *folder, mm_dataset **dataset)
{
    return open_dataset(NULL, folder, open_idx, dataset);
}

mm_status mm_dataset_folder_open(mm_comm *comm, const char *folder,
                                 mm_dataset **dataset)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(folder)));
    return open_dataset(comm, folder, mm_dataset_scan_folders, dataset);
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
