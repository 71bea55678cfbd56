#include "io/dataset_impl.h"

#include "io/file.h"
#include "io/hdf5_util.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The mapped file: pages come from the cache that all ranks of a host share. */
typedef struct mapping {
    uint8_t *data;
    int64_t n_bytes;
} mapping;

static void release_mapping(void *storage)
{
    mapping *map = storage;
    munmap(map->data, (size_t)map->n_bytes);
    free(map);
}

/* Maps what HDF5 has open: the name may lead to another file by now. */
static mm_status map_file(const char *path, hid_t file, mm_dataset *dataset)
{
    int *fd;
    struct stat info;
    if (H5Fget_vfd_handle(file, H5P_DEFAULT, (void **)&fd) < 0)
        return mm_h5_fail(MM_E_IO, path, "has no file descriptor");
    if (fstat(*fd, &info) != 0)
        return mm_fail_errno("cannot open %s", path);
    mapping *map = malloc(sizeof *map);
    if (!map)
        return mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    map->n_bytes = info.st_size;
    map->data = mmap(NULL, (size_t)map->n_bytes, PROT_READ, MAP_SHARED, *fd, 0);
    if (map->data == MAP_FAILED) {
        free(map);
        return mm_fail_errno("cannot map %s", path);
    }
    dataset->storage = map;
    dataset->release = release_mapping;
    return MM_OK;
}

/* An open dataset with its type and shape. */
typedef struct array {
    hid_t dataset, type, space;
    int n_dims;
    int64_t shape[4];
} array;

static void close_array(array *a)
{
    mm_h5_close(&a->space);
    mm_h5_close(&a->type);
    mm_h5_close(&a->dataset);
}

static mm_status open_array(const char *path, hid_t file, const char *name,
                            array *a, bool *there)
{
    *a = (array){MM_H5_NONE, MM_H5_NONE, MM_H5_NONE, 0, {0}};
    htri_t found = H5Lexists(file, name, H5P_DEFAULT);
    *there = found > 0;
    if (found == 0)
        return MM_OK;
    hsize_t dims[H5S_MAX_RANK];
    if (found < 0 || (a->dataset = H5Dopen2(file, name, H5P_DEFAULT)) < 0 ||
        (a->type = H5Dget_type(a->dataset)) < 0 ||
        (a->space = H5Dget_space(a->dataset)) < 0)
        return mm_h5_fail(MM_E_FORMAT, path, name);
    a->n_dims = H5Sget_simple_extent_ndims(a->space);
    if (a->n_dims < 1 || a->n_dims > 4 ||
        H5Sget_simple_extent_dims(a->space, dims, NULL) < 0)
        return mm_fail(MM_E_FORMAT, "%s: %s has no usable shape", path, name);
    for (int i = 0; i < a->n_dims; i++)
        a->shape[i] = dims[i] > INT64_MAX ? -1 : (int64_t)dims[i];
    return MM_OK;
}

static mm_status read_images(const char *path, hid_t file, const char *name,
                             const mapping *map, mm_split *split)
{
    array a;
    bool there;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(path, file, name, &a, &there));
    if (!there)
        MM_TRY_GOTO(st, done, mm_fail(MM_E_FORMAT, "%s lacks %s", path, name));
    if (H5Tequal(a.type, H5T_STD_U8LE) <= 0)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT, "%s: %s must be uint8", path, name));
    MM_TRY_GOTO(st, done,
                mm_split_set_shape(split, path, name, a.n_dims, a.shape));
    int64_t offset = mm_h5_offset(a.dataset), n_bytes = mm_split_n_bytes(split);
    if (offset < 0)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: %s is not contiguous; rewrite the file with "
                            "`h5repack -l CONTI OLD NEW`",
                            path, name));
    if (offset > map->n_bytes || n_bytes > map->n_bytes - offset)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s is truncated: %s lies beyond its end", path,
                            name));
    split->pixels = map->data + offset;
done:
    close_array(&a);
    return st;
}

/* Left alone where there is no such array and it is optional. */
static mm_status read_labels(const char *path, hid_t file, const char *name,
                             bool optional, int64_t n_images, int32_t **labels)
{
    array a;
    bool there;
    int64_t *wide = NULL;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(path, file, name, &a, &there));
    if (!there && optional)
        goto done;
    if (!there)
        MM_TRY_GOTO(st, done, mm_fail(MM_E_FORMAT, "%s lacks %s", path, name));
    if (a.n_dims != 1 || a.shape[0] != n_images ||
        H5Tget_class(a.type) != H5T_INTEGER)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: %s must be one integer for each of %lld "
                            "images",
                            path, name, (long long)n_images));
    /* No more images than bytes in the file, so this is no absurd amount. */
    wide = malloc((size_t)n_images * sizeof *wide + 1);
    if (!wide)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name));
    if (n_images > 0 && H5Dread(a.dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL,
                                H5P_DEFAULT, wide) < 0)
        MM_TRY_GOTO(st, done, mm_h5_fail(MM_E_FORMAT, path, name));
    st = mm_labels_narrow(path, name, wide, n_images, labels);
done:
    free(wide);
    close_array(&a);
    return st;
}

/* Copies of n strings of an open dataset. */
static mm_status copy_names(const char *path, const array *a, int n,
                            char **names)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    char **strings = calloc((size_t)n + 1, sizeof *strings);
    mm_status st = MM_OK;
    if (!strings)
        st = mm_fail(MM_E_MEMORY, "%s: no memory for names", path);
    else if (type < 0 || H5Tset_size(type, H5T_VARIABLE) < 0 ||
             H5Tset_cset(type, H5Tget_cset(a->type)) < 0 ||
             H5Dread(a->dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, strings) <
                 0)
        st = mm_h5_fail(MM_E_FORMAT, path, "cannot read names");
    for (int i = 0; st == MM_OK && i < n; i++) {
        names[i] = strdup(strings[i] ? strings[i] : "");
        if (!names[i])
            st = mm_fail(MM_E_MEMORY, "%s: no memory for names", path);
    }
    if (strings && type >= 0)
        H5Dvlen_reclaim(type, a->space, H5P_DEFAULT, strings);
    free(strings);
    mm_h5_close(&type);
    return st;
}

static mm_status read_names(const char *path, hid_t file, const char *name,
                            int *n_names, char ***names)
{
    array a;
    bool there;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(path, file, name, &a, &there));
    if (!there)
        goto done;
    /* Strings of variable length: HDF5 converts no others to them. */
    if (a.n_dims != 1 || H5Tis_variable_str(a.type) <= 0 || a.shape[0] < 1 ||
        a.shape[0] > MM_MAX_CLASSES)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: %s must be a list of variable-length strings",
                            path, name));
    *names = calloc((size_t)a.shape[0], sizeof **names);
    if (!*names)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name));
    *n_names = (int)a.shape[0];
    st = copy_names(path, &a, *n_names, *names);
done:
    close_array(&a);
    return st;
}

static mm_status read_file(const char *path, hid_t file, mm_dataset *d)
{
    bool is_ours;
    MM_TRY(mm_h5_check_format(path, file, "magmax-dataset", &is_ours));
    MM_TRY(map_file(path, file, d));
    if (H5Lexists(file, "train", H5P_DEFAULT) <= 0)
        return mm_fail(MM_E_FORMAT, "%s is no packed data set: it lacks /train",
                       path);
    MM_TRY(read_images(path, file, "train/images", d->storage, &d->train));
    MM_TRY(read_labels(path, file, "train/labels", false, d->train.n_images,
                       &d->train.labels));
    MM_TRY(read_labels(path, file, "train/domains", true, d->train.n_images,
                       &d->train.domains));
    if (H5Lexists(file, "test", H5P_DEFAULT) > 0) {
        MM_TRY(read_images(path, file, "test/images", d->storage, &d->test));
        MM_TRY(read_labels(path, file, "test/labels", false, d->test.n_images,
                           &d->test.labels));
        MM_TRY(read_labels(path, file, "test/domains", true, d->test.n_images,
                           &d->test.domains));
    }
    MM_TRY(
        read_names(path, file, "class_names", &d->n_classes, &d->class_names));
    return read_names(path, file, "domain_names", &d->n_domains,
                      &d->domain_names);
}

mm_status mm_dataset_open_packed(const char *path, mm_dataset *dataset)
{
    hid_t file = MM_H5_NONE;
    mm_status st = mm_h5_open(path, false, &file);
    if (st == MM_OK)
        st = read_file(path, file, dataset);
    mm_h5_close(&file);
    return st;
}

static mm_status write_array(const char *path, hid_t group, const char *name,
                             hid_t stored, hid_t held, int n_dims,
                             const int64_t *shape, const void *data)
{
    hid_t space = MM_H5_NONE, properties = MM_H5_NONE, dataset = MM_H5_NONE;
    hsize_t dims[4];
    mm_status st;
    for (int i = 0; i < n_dims; i++)
        dims[i] = (hsize_t)shape[i];
    MM_TRY_GOTO(st, done,
                MM_H5_GET(space, path, "bad shape",
                          H5Screate_simple(n_dims, dims, NULL)));
    MM_TRY_GOTO(st, done, mm_h5_contiguous(path, &properties));
    if (H5Tis_variable_str(stored) > 0) /* HDF5 must set their references */
        H5Pset_fill_time(properties, H5D_FILL_TIME_IFSET);
    MM_TRY_GOTO(st, done,
                MM_H5_GET(dataset, path, "cannot create a dataset",
                          H5Dcreate2(group, name, stored, space, H5P_DEFAULT,
                                     properties, H5P_DEFAULT)));
    if (shape[0] > 0)
        st =
            MM_H5(path, "cannot write a dataset",
                  H5Dwrite(dataset, held, H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
done:
    mm_h5_close(&dataset);
    mm_h5_close(&properties);
    mm_h5_close(&space);
    return st;
}

static mm_status write_split(const char *path, hid_t file, const char *name,
                             const mm_split *split, const mm_split *like)
{
    /* An empty split has the other one's shape. */
    const mm_split *form = split->n_images ? split : like;
    int64_t shape[4] = {split->n_images, form->height, form->width,
                        form->channels};
    hid_t group = MM_H5_NONE;
    mm_status st;
    MM_TRY_GOTO(st, done,
                MM_H5_GET(group, path, "cannot create a group",
                          H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT,
                                     H5P_DEFAULT)));
    MM_TRY_GOTO(st, done,
                write_array(path, group, "images", H5T_STD_U8LE,
                            H5T_NATIVE_UINT8, form->channels == 1 ? 3 : 4,
                            shape, split->pixels));
    MM_TRY_GOTO(st, done,
                write_array(path, group, "labels", H5T_STD_I32LE,
                            H5T_NATIVE_INT32, 1, shape, split->labels));
    if (split->domains)
        st = write_array(path, group, "domains", H5T_STD_I32LE,
                         H5T_NATIVE_INT32, 1, shape, split->domains);
done:
    mm_h5_close(&group);
    return st;
}

static mm_status write_names(const char *path, hid_t file, const char *name,
                             char *const *names, int n_names)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    int64_t shape[1] = {n_names};
    mm_status st = MM_OK;
    if (type < 0 || H5Tset_size(type, H5T_VARIABLE) < 0 ||
        H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        st = mm_h5_fail(MM_E_IO, path, "HDF5 refuses its settings");
    if (st == MM_OK)
        st = write_array(path, file, name, type, type, 1, shape, names);
    mm_h5_close(&type);
    return st;
}

static mm_status write_file(const char *path, hid_t file, const mm_dataset *d,
                            const char *provenance)
{
    MM_TRY(mm_h5_write_text_attribute(path, file, "format", "magmax-dataset"));
    MM_TRY(mm_h5_write_int_attribute(path, file, "format_version", 1));
    if (provenance)
        MM_TRY(
            mm_h5_write_text_attribute(path, file, "provenance", provenance));
    MM_TRY(write_split(path, file, "train", &d->train, &d->test));
    MM_TRY(write_split(path, file, "test", &d->test, &d->train));
    if (d->class_names)
        MM_TRY(write_names(path, file, "class_names", d->class_names,
                           d->n_classes));
    if (d->domain_names)
        MM_TRY(write_names(path, file, "domain_names", d->domain_names,
                           d->n_domains));
    return MM_OK;
}

mm_status mm_dataset_file_write(const char *path, const mm_dataset *dataset,
                                const char *provenance)
{
    char *tmp_path;
    if (asprintf(&tmp_path, "%s.tmp", path) < 0)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    hid_t file = MM_H5_NONE;
    mm_status st = mm_h5_create(tmp_path, &file);
    if (st == MM_OK)
        st = write_file(tmp_path, file, dataset, provenance);
    if (st == MM_OK)
        st = mm_h5_finish(tmp_path, &file);
    mm_h5_close(&file);
    if (st == MM_OK)
        st = mm_file_commit(tmp_path, path);
    if (st != MM_OK)
        unlink(tmp_path);
    free(tmp_path);
    return st;
}
