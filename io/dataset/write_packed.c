/* Writes packed data sets: HDF5 creates the structure, then ranges of bytes are
 * written straight to their places, and the file gets its name at the end. */

#include "io/dataset/write_packed.h"

#include "io/dataset/dataset_reader.h"
#include "io/file.h"
#include "io/hdf5/hdf5_strings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct mm_packed_writer {
    const mm_dataset *dataset;
    char *path, *tmp_path;
    int64_t offset[2]; /* of the images of train and test in the file */
    int fd;
};

/* ---- structure --------------------------------------------------------- */

/* An array of a file that is being made. */
typedef struct array {
    const char *name;
    hid_t stored, held;
    int n_dims;
    const int64_t *shape;
    const void *data; /* NULL: its place only */
} array;

static mm_status write_array(const char *path, hid_t group, const array *a,
                             int64_t *offset)
{
    hid_t space = MM_H5_NONE, properties = MM_H5_NONE, dataset = MM_H5_NONE;
    hsize_t dims[4];
    mm_status st;
    for (int i = 0; i < a->n_dims; i++)
        dims[i] = (hsize_t)a->shape[i];
    MM_TRY_GOTO(st, done,
                MM_H5_GET(space, path, "bad shape",
                          H5Screate_simple(a->n_dims, dims, NULL)));
    MM_TRY_GOTO(st, done, mm_h5_contiguous(path, &properties));
    if (H5Tis_variable_str(a->stored) > 0) /* HDF5 must set their references */
        H5Pset_fill_time(properties, H5D_FILL_TIME_IFSET);
    MM_TRY_GOTO(st, done,
                MM_H5_GET(dataset, path, "cannot create a dataset",
                          H5Dcreate2(group, a->name, a->stored, space,
                                     H5P_DEFAULT, properties, H5P_DEFAULT)));
    if (offset)
        *offset = mm_h5_offset(dataset);
    if (a->data && a->shape[0] > 0)
        st = MM_H5(
            path, "cannot write a dataset",
            H5Dwrite(dataset, a->held, H5S_ALL, H5S_ALL, H5P_DEFAULT, a->data));
done:
    mm_h5_close(&dataset);
    mm_h5_close(&properties);
    mm_h5_close(&space);
    return st;
}

static mm_status write_paths(const char *path, hid_t group, const mm_half *half)
{
    const char **texts = malloc((size_t)half->n_images * sizeof *texts + 1);
    if (!texts)
        return mm_fail(MM_E_MEMORY, "%s: no memory for paths", path);
    for (int64_t i = 0; i < half->n_images; i++)
        texts[i] = half->paths + half->path_starts[i];
    mm_status st =
        mm_h5_write_strings(path, group, "paths", texts, half->n_images);
    free(texts);
    return st;
}

/* Room for the images: raw, or encoded with their offsets. An empty half has
 * the other one's shape. */
static mm_status write_images(const char *path, hid_t group,
                              const mm_half *half, const mm_half *like,
                              int64_t *offset)
{
    const mm_half *form = half->n_images ? half : like;
    int64_t none = 0;
    if (form->storage == MM_STORED_PIXELS) {
        int64_t shape[4] = {half->n_images, form->height, form->width,
                            form->channels};
        array images = {.name = "images",
                        .stored = H5T_STD_U8LE,
                        .n_dims = form->channels == 1 ? 3 : 4,
                        .shape = shape};
        return write_array(path, group, &images, offset);
    }
    const int64_t *offsets = half->n_images ? half->offsets : &none;
    int64_t n_bytes = offsets[half->n_images];
    int64_t n_offsets = half->n_images + 1;
    array bytes = {.name = "bytes",
                   .stored = H5T_STD_U8LE,
                   .n_dims = 1,
                   .shape = &n_bytes};
    array where = {"offsets", H5T_STD_I64LE, H5T_NATIVE_INT64,
                   1,         &n_offsets,    offsets};
    MM_TRY(write_array(path, group, &bytes, offset));
    return write_array(path, group, &where, NULL);
}

static mm_status write_half(const char *path, hid_t file, const char *name,
                            const mm_half *half, const mm_half *like,
                            int64_t *offset)
{
    hid_t group = MM_H5_NONE;
    mm_status st;
    array labels = {"labels", H5T_STD_I32LE,   H5T_NATIVE_INT32,
                    1,        &half->n_images, half->labels};
    array domains = labels;
    domains.name = "domains";
    domains.data = half->domains;
    MM_TRY_GOTO(st, done,
                MM_H5_GET(group, path, "cannot create a group",
                          H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT,
                                     H5P_DEFAULT)));
    MM_TRY_GOTO(st, done, write_images(path, group, half, like, offset));
    MM_TRY_GOTO(st, done, write_array(path, group, &labels, NULL));
    if (half->domains)
        MM_TRY_GOTO(st, done, write_array(path, group, &domains, NULL));
    if (half->path_starts)
        st = write_paths(path, group, half);
done:
    mm_h5_close(&group);
    return st;
}

static mm_status write_names(const char *path, hid_t file, const char *name,
                             char *const *names, int64_t n)
{
    return names ? mm_h5_write_strings(path, file, name,
                                       (const char *const *)names, n)
                 : MM_OK;
}

static mm_status write_structure(mm_packed_writer *w, hid_t file,
                                 const char *provenance)
{
    const char *path = w->tmp_path;
    const mm_dataset *d = w->dataset;
    MM_TRY(mm_h5_write_text_attribute(path, file, "format", "magmax-dataset"));
    MM_TRY(mm_h5_write_int_attribute(path, file, "format_version", 1));
    if (provenance)
        MM_TRY(
            mm_h5_write_text_attribute(path, file, "provenance", provenance));
    MM_TRY(write_half(path, file, "train", &d->train, &d->test, &w->offset[0]));
    if (d->same_halves)
        MM_TRY(mm_h5_write_int_attribute(path, file, "one_split", 1));
    else
        MM_TRY(
            write_half(path, file, "test", &d->test, &d->train, &w->offset[1]));
    MM_TRY(
        write_names(path, file, "class_names", d->class_names, d->n_classes));
    return write_names(path, file, "domain_names", d->domain_names,
                       d->n_domains);
}

/* ---- writing ----------------------------------------------------------- */

static void destroy(mm_packed_writer **writer)
{
    mm_packed_writer *w = *writer;
    if (w->fd >= 0)
        close(w->fd);
    free(w->path);
    free(w->tmp_path);
    free(w);
    *writer = NULL;
}

/* Room on the disk, so that a full one is an error before the work. File
 * systems that cannot tell go on. */
static mm_status open_to_write(mm_packed_writer *w)
{
    struct stat info;
    w->fd = open(w->tmp_path, O_WRONLY | O_CLOEXEC);
    if (w->fd < 0 || fstat(w->fd, &info) != 0)
        return mm_fail_errno("cannot open %s", w->tmp_path);
    if (fallocate(w->fd, 0, 0, info.st_size) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        return mm_fail_errno("cannot write %s (%lld bytes)", w->path,
                             (long long)info.st_size);
    return MM_OK;
}

mm_status mm_packed_writer_begin(const char *path, const mm_dataset *dataset,
                                 const char *provenance,
                                 mm_packed_writer **writer)
{
    hid_t file = MM_H5_NONE;
    mm_packed_writer *w = calloc(1, sizeof *w);
    *writer = w;
    if (!w)
        return mm_fail(MM_E_MEMORY, "%s: no memory to write it", path);
    w->dataset = dataset;
    w->fd = -1;
    w->path = strdup(path);
    if (asprintf(&w->tmp_path, "%s.tmp", path) < 0)
        w->tmp_path = NULL;
    mm_status st =
        w->path && w->tmp_path
            ? mm_h5_create(w->tmp_path, &file)
            : mm_fail(MM_E_MEMORY, "%s: no memory to write it", path);
    if (st == MM_OK)
        st = write_structure(w, file, provenance);
    if (st == MM_OK)
        st = mm_h5_finish(w->tmp_path, &file);
    mm_h5_close(&file);
    if (st == MM_OK)
        st = open_to_write(w);
    return st == MM_OK ? MM_OK : mm_packed_writer_commit(writer, st);
}

mm_status mm_packed_writer_write(mm_packed_writer *w, const mm_half *half,
                                 int64_t off_bytes, const void *data,
                                 int64_t n_bytes)
{
    bool is_test = half == &w->dataset->test;
    MM_ASSERT(is_test || half == &w->dataset->train);
    return mm_file_write_at(w->fd, w->tmp_path, w->offset[is_test] + off_bytes,
                            data, n_bytes);
}

mm_status mm_packed_writer_commit(mm_packed_writer **writer, mm_status status)
{
    mm_packed_writer *w = *writer;
    if (w->fd >= 0 && close(w->fd) != 0 && status == MM_OK)
        status = mm_fail_errno("cannot write %s", w->tmp_path);
    w->fd = -1;
    if (status == MM_OK)
        status = mm_file_commit(w->tmp_path, w->path);
    if (status != MM_OK && w->tmp_path)
        unlink(w->tmp_path);
    destroy(writer);
    return status;
}

/* ---- in one go --------------------------------------------------------- */

static mm_status put_half(mm_packed_writer *w, const mm_half *half)
{
    if (half->n_images == 0)
        return MM_OK;
    if (half->storage == MM_STORED_PIXELS)
        return mm_packed_writer_write(w, half, 0, half->pixels,
                                      mm_half_n_bytes(half));
    return mm_packed_writer_write(w, half, 0, half->bytes,
                                  half->offsets[half->n_images]);
}

mm_status mm_dataset_write(const char *path, const mm_dataset *dataset,
                           const char *provenance)
{
    mm_packed_writer *w;
    MM_TRY(mm_packed_writer_begin(path, dataset, provenance, &w));
    mm_status st = put_half(w, &dataset->train);
    if (st == MM_OK && !dataset->same_halves)
        st = put_half(w, &dataset->test);
    return mm_packed_writer_commit(&w, st);
}
