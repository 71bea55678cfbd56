/* Reads our packed data sets: the HDF5 file is checked and mapped, and images,
 * labels and paths point into the mapping where they can. */

#include "io/dataset/dataset_reader.h"

#include "io/file.h"
#include "io/hdf5/hdf5_strings.h"

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

/* Where an array of n_bytes bytes lies in the mapped file. */
static mm_status find_bytes(const char *path, const char *name, const array *a,
                            const mapping *map, int64_t n_bytes,
                            const uint8_t **bytes)
{
    if (H5Tequal(a->type, H5T_STD_U8LE) <= 0)
        return mm_fail(MM_E_FORMAT, "%s: %s must be uint8", path, name);
    int64_t offset = mm_h5_offset(a->dataset);
    if (offset < 0)
        return mm_fail(MM_E_FORMAT,
                       "%s: %s is not contiguous; rewrite the file with "
                       "`h5repack -l CONTI OLD NEW`",
                       path, name);
    if (offset > map->n_bytes || n_bytes > map->n_bytes - offset)
        return mm_fail(MM_E_FORMAT,
                       "%s is truncated: %s extends beyond its end", path,
                       name);
    *bytes = map->data + offset;
    return MM_OK;
}

static mm_status read_images(const char *path, hid_t file, const char *name,
                             const mapping *map, mm_half *half, bool *there)
{
    array a;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(path, file, name, &a, there));
    if (!*there)
        goto done;
    MM_TRY_GOTO(st, done,
                mm_half_set_shape(half, path, name, a.n_dims, a.shape));
    st = find_bytes(path, name, &a, map, mm_half_n_bytes(half), &half->pixels);
done:
    close_array(&a);
    return st;
}

static mm_status check_offsets(const char *path, const char *name,
                               const int64_t *offsets, int64_t n,
                               int64_t n_bytes)
{
    for (int64_t i = 0; i < n; i++)
        if (offsets[i] < 0 || offsets[i] > offsets[i + 1])
            return mm_fail(MM_E_FORMAT, "%s: %s[%lld] is not in order", path,
                           name, (long long)i);
    if (offsets[0] != 0 || offsets[n] != n_bytes)
        return mm_fail(MM_E_FORMAT, "%s: %s does not cover the bytes", path,
                       name);
    return MM_OK;
}

static mm_status read_offsets(const char *path, hid_t file, const char *name,
                              const mapping *map, int64_t n_bytes,
                              mm_half *half)
{
    array a;
    bool there;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(path, file, name, &a, &there));
    if (!there || a.n_dims != 1 || a.shape[0] < 1 ||
        H5Tget_class(a.type) != H5T_INTEGER)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: %s must be one integer for each image and one "
                            "more",
                            path, name));
    /* An image has a byte at least; the list itself may be nowhere. */
    if (a.shape[0] - 1 > map->n_bytes)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: %s claims more images than the file can hold",
                            path, name));
    half->n_images = a.shape[0] - 1;
    half->offsets = calloc((size_t)a.shape[0], sizeof *half->offsets);
    if (!half->offsets)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name));
    if (H5Dread(a.dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                half->offsets) < 0)
        MM_TRY_GOTO(st, done, mm_h5_fail(MM_E_FORMAT, path, name));
    st = check_offsets(path, name, half->offsets, half->n_images, n_bytes);
done:
    close_array(&a);
    return st;
}

static mm_status read_bytes(const char *path, hid_t file, const char *name,
                            const mapping *map, mm_half *half, int64_t *n_bytes)
{
    array a;
    bool there;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(path, file, name, &a, &there));
    if (!there || a.n_dims != 1)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s contains neither %.*s/images nor an array %s",
                            path, (int)strcspn(name, "/"), name, name));
    *n_bytes = a.shape[0];
    half->storage = MM_STORED_BYTES;
    st = find_bytes(path, name, &a, map, *n_bytes, &half->bytes);
done:
    close_array(&a);
    return st;
}

/* Leaves *labels where there is no such array and it is optional. */
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
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT, "%s does not contain %s", path, name));
    if (a.n_dims != 1 || a.shape[0] != n_images ||
        H5Tget_class(a.type) != H5T_INTEGER)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: %s must be one integer for each of %lld "
                            "images",
                            path, name, (long long)n_images));
    /* No more images than bytes in the file, so this is a plausible amount. */
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

static mm_status read_names(const char *path, hid_t file, const char *name,
                            int *n_names, char ***names)
{
    int64_t n;
    MM_TRY(mm_h5_read_strings(path, file, name, MM_MAX_CLASSES, names, &n));
    *n_names = (int)n;
    return MM_OK;
}

/* The paths that the images once had: a list of texts becomes one block. */
static mm_status join_paths(const char *path, char **names, mm_half *half)
{
    int64_t n_bytes = 0;
    half->path_starts = malloc((size_t)half->n_images * sizeof(int64_t));
    if (!half->path_starts)
        return mm_fail(MM_E_MEMORY, "%s: no memory for paths", path);
    for (int64_t i = 0; i < half->n_images; i++) {
        half->path_starts[i] = n_bytes;
        n_bytes += (int64_t)strlen(names[i]) + 1;
    }
    half->paths = malloc((size_t)n_bytes);
    if (!half->paths)
        return mm_fail(MM_E_MEMORY, "%s: no memory for paths", path);
    for (int64_t i = 0; i < half->n_images; i++)
        strcpy(half->paths + half->path_starts[i], names[i]);
    return MM_OK;
}

static mm_status read_paths(const char *path, hid_t file, const char *name,
                            mm_half *half)
{
    char **names;
    int64_t n_names;
    MM_TRY(
        mm_h5_read_strings(path, file, name, half->n_images, &names, &n_names));
    mm_status st = MM_OK;
    if (names && n_names != half->n_images)
        st = mm_fail(MM_E_FORMAT, "%s: %s must be one text for each image",
                     path, name);
    if (st == MM_OK && names)
        st = join_paths(path, names, half);
    free(names);
    return st;
}

static mm_status read_half(const char *path, hid_t file, const char *group,
                           const mapping *map, mm_half *half)
{
    bool raw;
    char name[5][24];
    static const char *const parts[] = {"images", "bytes", "offsets", "labels",
                                        "domains"};
    for (int i = 0; i < 5; i++)
        snprintf(name[i], sizeof name[i], "%s/%s", group, parts[i]);
    MM_TRY(read_images(path, file, name[0], map, half, &raw));
    if (!raw) {
        int64_t n_bytes;
        MM_TRY(read_bytes(path, file, name[1], map, half, &n_bytes));
        MM_TRY(read_offsets(path, file, name[2], map, n_bytes, half));
    }
    MM_TRY(
        read_labels(path, file, name[3], false, half->n_images, &half->labels));
    MM_TRY(
        read_labels(path, file, name[4], true, half->n_images, &half->domains));
    snprintf(name[0], sizeof name[0], "%s/paths", group);
    return half->n_images ? read_paths(path, file, name[0], half) : MM_OK;
}

static mm_status read_file(const char *path, hid_t file, mm_dataset *d)
{
    bool is_ours;
    MM_TRY(mm_h5_check_format(path, file, "magmax-dataset", &is_ours));
    MM_TRY(map_file(path, file, d));
    if (H5Lexists(file, "train", H5P_DEFAULT) <= 0)
        return mm_fail(
            MM_E_FORMAT,
            "%s is not a packed data set: it does not contain /train", path);
    MM_TRY(read_half(path, file, "train", d->storage, &d->train));
    if (H5Lexists(file, "test", H5P_DEFAULT) > 0)
        MM_TRY(read_half(path, file, "test", d->storage, &d->test));
    else
        d->same_halves = H5Aexists(file, "one_split") > 0;
    MM_TRY(
        read_names(path, file, "class_names", &d->n_classes, &d->class_names));
    return read_names(path, file, "domain_names", &d->n_domains,
                      &d->domain_names);
}

mm_status mm_dataset_read_packed(const char *path, mm_dataset *dataset)
{
    hid_t file = MM_H5_NONE;
    mm_status st = mm_h5_open(path, false, &file);
    if (st == MM_OK)
        st = read_file(path, file, dataset);
    mm_h5_close(&file);
    return st;
}
