#include "io/hdf5_util.h"
#include "io/manifest.h"
#include "io/weights_impl.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The walk over a group's links. */
typedef struct walk {
    mm_weights *weights;
    bool strict; /* in /model, everything is a tensor */
    mm_status status;
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
    int bits = 8 * (int)H5Tget_size(type);
    if (H5Tget_class(type) != H5T_FLOAT) {
        snprintf(source->type_name, sizeof source->type_name, "I%d", bits);
        return;
    }
    snprintf(source->type_name, sizeof source->type_name, "%sF%d",
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

static mm_status add_link(walk *w, hid_t group, const char *name, bool is_hard)
{
    hid_t object = MM_H5_NONE, type = MM_H5_NONE, space = MM_H5_NONE;
    mm_status st = MM_OK;
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

static herr_t visit(hid_t group, const char *name, const H5L_info_t *info,
                    void *data)
{
    walk *w = data;
    w->status = add_link(w, group, name, info->type == H5L_TYPE_HARD);
    return w->status != MM_OK;
}

static mm_status read_table(mm_weights *weights, hid_t group, bool strict)
{
    walk w = {.weights = weights, .strict = strict};
    unsigned order = 0;
    /* H5Gget_create_plist refuses the file itself, not its root group. */
    hid_t self = H5Gopen2(group, ".", H5P_DEFAULT);
    hid_t properties = H5Gget_create_plist(self);
    if (properties >= 0)
        H5Pget_link_creation_order(properties, &order);
    mm_h5_close(&properties);
    herr_t bad = H5Literate(self,
                            order & H5P_CRT_ORDER_TRACKED ? H5_INDEX_CRT_ORDER
                                                          : H5_INDEX_NAME,
                            H5_ITER_INC, NULL, visit, &w);
    if (w.status == MM_OK && bad < 0)
        w.status =
            mm_h5_fail(MM_E_FORMAT, weights->path, "cannot list its datasets");
    mm_h5_close(&self);
    return w.status;
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
        if (!mm_manifest_next(&cursor, &line) ||
            !mm_manifest_is(&line, table->tensors[i].name))
            return mm_fail(MM_E_FORMAT,
                           "%s: its manifest does not list tensor %s in place",
                           weights->path, table->tensors[i].name);
        weights->expected[i] = line.crc;
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
    mm_status st = MM_OK;
    weights->expected =
        calloc((size_t)weights->table.n_tensors + 1, sizeof *weights->expected);
    if (!weights->expected)
        st = mm_fail(MM_E_MEMORY, "%s: no memory for checksums", weights->path);
    if (st == MM_OK)
        st = mm_manifest_check(weights->path, text);
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
    close(weights->fd);
    weights->fd = fd;
    weights->n_bytes = info.st_size;
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

mm_status mm_weights_open_hdf5(mm_weights *weights)
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
    bool in_group = group >= 0;
    MM_TRY_GOTO(st, done,
                read_table(weights, in_group ? group : file, in_group));
    st = read_texts(weights, file, is_ours);
done:
    mm_h5_close(&group);
    mm_h5_close(&file);
    return st;
}
