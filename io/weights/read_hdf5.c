/* Reads the tensor table, manifest and texts of weights in HDF5, our
 * checkpoints and those of others; read_elements.c reads the elements. */

#include "io/hdf5/hdf5_util.h"
#include "io/weights/manifest.h"
#include "io/weights/weights_reader.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A group's links. */
typedef struct walk {
    mm_weights *weights;
    bool strict; /* in /model, everything is a tensor */
    char **names;
    int64_t n_names, capacity;
} walk;

/* A floating-point type of 16 bits as HDF5 describes it. */
static bool is_half(hid_t type, size_t exponent_bits)
{
    size_t sign, exponent, exponent_size, mantissa, mantissa_size;
    return H5Tget_size(type) == 2 && H5Tget_order(type) == H5T_ORDER_LE &&
           H5Tget_precision(type) == 16 && H5Tget_offset(type) == 0 &&
           H5Tget_fields(type, &sign, &exponent, &exponent_size, &mantissa,
                         &mantissa_size) >= 0 &&
           sign == 15 && exponent_size == exponent_bits && mantissa == 0 &&
           mantissa_size == 15 - exponent_bits && exponent == mantissa_size &&
           H5Tget_ebias(type) == ((size_t)1 << (exponent_bits - 1)) - 1 &&
           H5Tget_norm(type) == H5T_NORM_IMPLIED;
}

static void describe_type(hid_t type, mm_source *source)
{
    source->type = MM_ELEM_OTHER;
    /* As large as the file claims; the name is cut off where it is long. */
    const unsigned long long bits = 8ull * H5Tget_size(type);
    if (H5Tget_class(type) != H5T_FLOAT) {
        snprintf(source->type_name, sizeof source->type_name, "I%llu", bits);
        return;
    }
    snprintf(source->type_name, sizeof source->type_name, "%sF%llu",
             H5Tget_order(type) == H5T_ORDER_BE ? "big-endian " : "", bits);
    if (H5Tequal(type, H5T_IEEE_F64LE) > 0)
        source->type = MM_ELEM_F64;
    else if (H5Tequal(type, H5T_IEEE_F32LE) > 0)
        source->type = MM_ELEM_F32;
    else if (is_half(type, 5))
        source->type = MM_ELEM_F16;
    else if (is_half(type, 8))
        source->type = MM_ELEM_BF16;
}

static mm_status check_layout(const mm_weights *weights, const char *name,
                              hid_t dataset)
{
    hid_t properties = H5Dget_create_plist(dataset);
    bool fits = H5Pget_layout(properties) == H5D_CONTIGUOUS &&
                H5Pget_external_count(properties) == 0;
    mm_h5_close(&properties);
    if (!fits)
        return mm_fail(MM_E_FORMAT,
                       "%s: dataset %s is chunked, compact or elsewhere; "
                       "rewrite the file with `h5repack -l CONTI OLD NEW`",
                       weights->path, name);
    return MM_OK;
}

static mm_status add_dataset(walk *w, const char *name, hid_t dataset,
                             hid_t type, hid_t space)
{
    H5T_class_t class = H5Tget_class(type);
    if (class != H5T_FLOAT && class != H5T_INTEGER) {
        if (w->strict)
            return mm_fail(MM_E_FORMAT, "%s: dataset %s holds no numbers",
                           w->weights->path, name);
        return MM_OK;
    }
    hsize_t dims[H5S_MAX_RANK];
    int64_t shape[MM_MAX_DIMS];
    int n_dims = H5Sget_simple_extent_ndims(space);
    if (H5Sget_simple_extent_type(space) == H5S_NULL || n_dims < 0 ||
        n_dims > MM_MAX_DIMS ||
        H5Sget_simple_extent_dims(space, dims, NULL) != n_dims)
        return mm_fail(MM_E_FORMAT, "%s: dataset %s has no usable shape",
                       w->weights->path, name);
    for (int i = 0; i < n_dims; i++)
        shape[i] = dims[i] > INT64_MAX ? -1 : (int64_t)dims[i];

    mm_source source = {0};
    describe_type(type, &source);
    if (source.type != MM_ELEM_OTHER) {
        MM_TRY(check_layout(w->weights, name, dataset));
        source.off_bytes = mm_h5_offset(dataset);
        if (source.off_bytes < 0)
            return mm_fail(MM_E_FORMAT, "%s: dataset %s was never written",
                           w->weights->path, name);
    }
    return mm_weights_add(w->weights, name, n_dims, shape, &source);
}

static mm_status add_link(walk *w, hid_t group, const char *name)
{
    hid_t object = MM_H5_NONE, type = MM_H5_NONE, space = MM_H5_NONE;
    H5L_info_t info;
    mm_status st = MM_OK;
    if (H5Lget_info(group, name, &info, H5P_DEFAULT) < 0)
        return mm_h5_fail(MM_E_FORMAT, w->weights->path, "a link is damaged");
    bool is_hard = info.type == H5L_TYPE_HARD;
    if (is_hard) {
        object = H5Oopen(group, name, H5P_DEFAULT);
        if (object < 0)
            return mm_h5_fail(MM_E_FORMAT, w->weights->path,
                              "a dataset is damaged");
    }
    if (is_hard && H5Iget_type(object) == H5I_DATASET) {
        type = H5Dget_type(object);
        space = H5Dget_space(object);
        if (type < 0 || space < 0)
            st = mm_h5_fail(MM_E_FORMAT, w->weights->path,
                            "a dataset is damaged");
        else
            st = add_dataset(w, name, object, type, space);
    } else if (w->strict) {
        st = mm_fail(MM_E_FORMAT, "%s: /model/%s is not a dataset",
                     w->weights->path, name);
    }
    mm_h5_close(&space);
    mm_h5_close(&type);
    mm_h5_close(&object);
    return st;
}

static mm_status no_memory(const walk *w)
{
    return mm_fail(MM_E_MEMORY, "%s: no memory for its names",
                   w->weights->path);
}

static mm_status damaged_group(const walk *w)
{
    return mm_h5_fail(MM_E_FORMAT, w->weights->path,
                      "cannot list its datasets");
}

static herr_t take_name(hid_t group, const char *name, const H5L_info_t *info,
                        void *data)
{
    walk *w = data;
    (void)group;
    (void)info;
    if (w->n_names == w->capacity || !(w->names[w->n_names] = strdup(name)))
        return -1;
    w->n_names++;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted here: HDF5 1.10 frees garbage when it sorts the links of a damaged
 * group, but not when it hands them out as they come. */
static mm_status list_by_name(walk *w, hid_t group)
{
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, take_name, w) <
        0)
        return damaged_group(w);
    qsort(w->names, (size_t)w->n_names, sizeof *w->names, by_name);
    return MM_OK;
}

static mm_status list_by_creation(walk *w, hid_t group)
{
    for (; w->n_names < w->capacity; w->n_names++) {
        hsize_t i = (hsize_t)w->n_names;
        ssize_t length =
            H5Lget_name_by_idx(group, ".", H5_INDEX_CRT_ORDER, H5_ITER_INC, i,
                               NULL, 0, H5P_DEFAULT);
        if (length < 0)
            return damaged_group(w);
        char *name = malloc((size_t)length + 1);
        if (!name)
            return no_memory(w);
        w->names[w->n_names] = name;
        if (H5Lget_name_by_idx(group, ".", H5_INDEX_CRT_ORDER, H5_ITER_INC, i,
                               name, (size_t)length + 1,
                               H5P_DEFAULT) != length) {
            free(name);
            return damaged_group(w);
        }
    }
    return MM_OK;
}

static mm_status list_names(walk *w, hid_t group)
{
    const unsigned both = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
    unsigned order = 0;
    H5G_info_t info;
    hid_t properties = H5Gget_create_plist(group);
    if (properties < 0 || H5Pget_link_creation_order(properties, &order) < 0 ||
        H5Gget_info(group, &info) < 0) {
        mm_status st = damaged_group(w);
        mm_h5_close(&properties);
        return st;
    }
    mm_h5_close(&properties);
    if (info.nlinks > MM_MAX_TENSORS)
        return mm_fail(MM_E_FORMAT, "%s holds more than %d tensors",
                       w->weights->path, MM_MAX_TENSORS);
    w->capacity = (int64_t)info.nlinks;
    w->names = calloc(info.nlinks + 1, sizeof *w->names);
    if (!w->names)
        return no_memory(w);
    return (order & both) == both ? list_by_creation(w, group)
                                  : list_by_name(w, group);
}

static mm_status read_table(mm_weights *weights, hid_t group, bool strict)
{
    walk w = {.weights = weights, .strict = strict};
    /* H5Gget_create_plist refuses the file itself, not its root group. */
    hid_t self = H5Gopen2(group, ".", H5P_DEFAULT);
    mm_status st = self < 0 ? damaged_group(&w) : list_names(&w, self);
    for (int64_t i = 0; st == MM_OK && i < w.n_names; i++)
        st = add_link(&w, self, w.names[i]);
    for (int64_t i = 0; i < w.n_names; i++)
        free(w.names[i]);
    free(w.names);
    mm_h5_close(&self);
    return st;
}

/* A text must be what the manifest's line says. */
static mm_status check_text(const mm_weights *weights, const char *name,
                            const char *text, const mm_manifest_line *line)
{
    if (!text || mm_crc32(text, (int64_t)strlen(text)) != line->crc)
        return mm_fail(MM_E_FORMAT,
                       "%s is damaged: the checksum of %s is wrong",
                       weights->path, name);
    return MM_OK;
}

static mm_status read_lines(mm_weights *weights, const char *cursor,
                            const char *model)
{
    const mm_tensor_table *table = &weights->table;
    mm_manifest_line line;
    for (int i = 0; i < table->n_tensors; i++) {
        const char *name = table->tensors[i].name;
        bool is_listed = mm_manifest_next(&cursor, &line);
        if (is_listed)
            MM_TRY(mm_manifest_is_of(&line, name, &is_listed));
        if (!is_listed)
            return mm_fail(MM_E_FORMAT,
                           "%s: its manifest does not list tensor %s in place",
                           weights->path, name);
        weights->sources[i].has_crc = true;
        weights->sources[i].crc = line.crc;
    }
    int n_texts = (weights->provenance != NULL) + (model != NULL);
    while (mm_manifest_next(&cursor, &line)) {
        n_texts--;
        if (mm_manifest_is(&line, "/provenance"))
            MM_TRY(
                check_text(weights, "/provenance", weights->provenance, &line));
        else if (mm_manifest_is(&line, "/model_config"))
            MM_TRY(check_text(weights, "/model_config", model, &line));
        else
            return mm_fail(MM_E_FORMAT,
                           "%s: its manifest lists %.*s, which is not there",
                           weights->path, line.name_bytes, line.name);
    }
    if (*cursor || n_texts != 0)
        return mm_fail(MM_E_FORMAT, "%s: its manifest does not fit its content",
                       weights->path);
    return MM_OK;
}

static mm_status read_manifest(mm_weights *weights, hid_t file,
                               const char *model)
{
    char *text;
    MM_TRY(mm_h5_read_text(weights->path, file, "manifest", &text));
    if (!text)
        return mm_fail(MM_E_FORMAT,
                       "%s has no manifest: writing it was not finished",
                       weights->path);
    weights->has_checksums = true;
    mm_status st = mm_manifest_check(weights->path, text);
    if (st == MM_OK)
        st = read_lines(weights, text, model);
    free(text);
    return st;
}

static mm_status read_texts(mm_weights *weights, hid_t file, bool is_ours)
{
    char *model = NULL;
    mm_status st;
    MM_TRY(mm_h5_read_text_attribute(weights->path, file, "model",
                                     &weights->model));
    if (!is_ours)
        return MM_OK;
    MM_TRY(mm_h5_read_text(weights->path, file, "provenance",
                           &weights->provenance));
    MM_TRY_GOTO(st, done,
                mm_h5_read_text(weights->path, file, "model_config", &model));
    MM_TRY_GOTO(st, done, read_manifest(weights, file, model));
    if (model && !weights->model) {
        weights->model = model;
        model = NULL;
    }
done:
    free(model);
    return st;
}

/* Read elements through HDF5's own descriptor: the name may lead to another
 * file by now. */
static mm_status take_descriptor(mm_weights *weights, hid_t file)
{
    int *handle;
    struct stat info;
    if (H5Fget_vfd_handle(file, H5P_DEFAULT, (void **)&handle) < 0)
        return mm_h5_fail(MM_E_IO, weights->path, "has no file descriptor");
    int fd = fcntl(*handle, F_DUPFD_CLOEXEC, 0);
    if (fd < 0 || fstat(fd, &info) != 0) {
        mm_status st = mm_fail_errno("cannot open %s", weights->path);
        if (fd >= 0)
            close(fd);
        return st;
    }
    close(weights->file->fd);
    weights->file->fd = fd;
    weights->file->n_bytes = info.st_size;
    return MM_OK;
}

/* The group /model, or nothing where there is no such group. A link into
 * another file is none: offsets would belong there. */
static mm_status open_group(const mm_weights *weights, hid_t file, hid_t *group)
{
    H5L_info_t info;
    htri_t there = H5Lexists(file, "model", H5P_DEFAULT);
    if (there > 0 && H5Lget_info(file, "model", &info, H5P_DEFAULT) < 0)
        there = -1;
    if (there > 0 && info.type == H5L_TYPE_HARD) {
        *group = H5Oopen(file, "model", H5P_DEFAULT);
        if (*group < 0)
            there = -1;
        else if (H5Iget_type(*group) != H5I_GROUP)
            mm_h5_close(group);
    }
    if (there < 0)
        return mm_h5_fail(MM_E_FORMAT, weights->path, "/model is damaged");
    return MM_OK;
}

mm_status mm_weights_read_hdf5(mm_weights *weights)
{
    hid_t file = MM_H5_NONE, group = MM_H5_NONE;
    bool is_ours = false;
    mm_status st;

    MM_TRY_GOTO(st, done, mm_h5_open(weights->path, false, &file));
    MM_TRY_GOTO(st, done, take_descriptor(weights, file));
    MM_TRY_GOTO(
        st, done,
        mm_h5_check_format(weights->path, file, "magmax-checkpoint", &is_ours));
    MM_TRY_GOTO(st, done, open_group(weights, file, &group));
    weights->kind = is_ours ? MM_WEIGHTS_CHECKPOINT : MM_WEIGHTS_HDF5;
    bool in_group = group >= 0;
    MM_TRY_GOTO(st, done,
                read_table(weights, in_group ? group : file, in_group));
    st = read_texts(weights, file, is_ours);
done:
    mm_h5_close(&group);
    mm_h5_close(&file);
    return st;
}
