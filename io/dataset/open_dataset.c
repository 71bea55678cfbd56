/* Opens data sets: which reader reads a file is decided by its content, and
 * what all readers leave to do is done here. */

#include "io/dataset/dataset_reader.h"

#include "comm/check_same.h"
#include "io/file.h"
#include "io/hdf5/hdf5_util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
        return mm_fail(MM_E_IO, "%s is not a regular file", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", path);
    char start[4] = {0};
    bool is_hdf5 = mm_h5_is_file(fd);
    bool is_zip = pread(fd, start, 4, 0) == 4 && memcmp(start, "PK", 2) == 0;
    close(fd);
    if (is_hdf5)
        return mm_dataset_read_packed(path, dataset);
    if (is_zip)
        return mm_dataset_read_npz(path, dataset);
    return mm_fail(MM_E_FORMAT,
                   "%s is neither a packed data set (HDF5) nor .npz", path);
}

static mm_status open_idx(mm_comm *alone, const char *folder,
                          mm_dataset *dataset)
{
    (void)alone;
    return mm_dataset_read_idx(folder, dataset);
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

mm_status mm_dataset_open_file(const char *path, mm_dataset **dataset)
{
    return open_dataset(NULL, path, open_by_content, dataset);
}

mm_status mm_dataset_open_idx(const char *folder, mm_dataset **dataset)
{
    return open_dataset(NULL, folder, open_idx, dataset);
}

mm_status mm_dataset_open_folder(mm_comm *comm, const char *folder,
                                 mm_dataset **dataset)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(folder)));
    return open_dataset(comm, folder, mm_dataset_read_class_folders, dataset);
}
