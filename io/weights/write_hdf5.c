/* Writes checkpoints: weights files in our HDF5 format. */

#include "comm/check_same.h"
#include "comm/partition.h"
#include "io/hdf5/hdf5_util.h"
#include "io/weights/manifest.h"
#include "io/weights/weights_format.h"
#include "src/base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_ATTRIBUTE_BYTES = 60 << 10, /* HDF5 refuses 64 KiB */
    METADATA_BYTES = 1 << 16,       /* more than HDF5 needs at first */
    TENSOR_METADATA_BYTES = 1 << 10
};

static mm_status check_names(const mm_weights_writer *w)
{
    for (int i = 0; i < w->table->n_tensors; i++) {
        const char *name = w->table->tensors[i].name;
        if (!*name || strcmp(name, ".") == 0 || strpbrk(name, "/\n"))
            return mm_fail(MM_E_ARG,
                           "%s: a tensor cannot be named \"%s\" in a file",
                           w->path, name);
    }
    return MM_OK;
}

static mm_status create_dataset(mm_weights_writer *w, hid_t group,
                                hid_t properties, int tensor)
{
    const mm_tensor *t = &w->table->tensors[tensor];
    hid_t space = MM_H5_NONE, dataset = MM_H5_NONE;
    hsize_t dims[MM_MAX_DIMS];
    mm_status st;

    for (int i = 0; i < t->n_dims; i++)
        dims[i] = (hsize_t)t->shape[i];
    MM_TRY_GOTO(st, done,
                MM_H5_GET(space, w->tmp_path, "bad shape",
                          t->n_dims ? H5Screate_simple(t->n_dims, dims, NULL)
                                    : H5Screate(H5S_SCALAR)));
    MM_TRY_GOTO(st, done,
                MM_H5_GET(dataset, w->tmp_path, "cannot create a dataset",
                          H5Dcreate2(group, t->name, H5T_IEEE_F32LE, space,
                                     H5P_DEFAULT, properties, H5P_DEFAULT)));
    w->off_bytes[tensor] = mm_h5_offset(dataset);
    if (w->off_bytes[tensor] < 0)
        st = mm_fail(MM_E_IO, "%s: HDF5 gave tensor %s no place", w->tmp_path,
                     t->name);
done:
    mm_h5_close(&dataset);
    mm_h5_close(&space);
    return st;
}

static mm_status create_group(mm_weights_writer *w, hid_t file, hid_t *group)
{
    hid_t properties = H5Pcreate(H5P_GROUP_CREATE);
    mm_status st = MM_OK;
    if (properties < 0 || H5Pset_obj_track_times(properties, false) < 0 ||
        H5Pset_link_creation_order(properties, H5P_CRT_ORDER_TRACKED |
                                                   H5P_CRT_ORDER_INDEXED) < 0)
        st = mm_h5_fail(MM_E_IO, w->tmp_path, "HDF5 refuses its settings");
    if (st == MM_OK)
        st = MM_H5_GET(
            *group, w->tmp_path, "cannot create a group",
            H5Gcreate2(file, "model", H5P_DEFAULT, properties, H5P_DEFAULT));
    mm_h5_close(&properties);
    return st;
}

/* The file's structure; every tensor has its place, and nothing in it yet. */
static mm_status create_structure(mm_weights_writer *w)
{
    hid_t file = MM_H5_NONE, group = MM_H5_NONE, properties = MM_H5_NONE;
    int64_t n_bytes = w->table->n_elems * 4 + METADATA_BYTES +
                      (int64_t)w->table->n_tensors * TENSOR_METADATA_BYTES;
    mm_status st;

    MM_TRY_GOTO(st, done, mm_weights_writer_reserve(w, n_bytes));
    MM_TRY_GOTO(st, done, mm_h5_create(w->tmp_path, &file));
    MM_TRY_GOTO(st, done,
                mm_h5_write_text_attribute(w->tmp_path, file, "format",
                                           "magmax-checkpoint"));
    MM_TRY_GOTO(
        st, done,
        mm_h5_write_int_attribute(w->tmp_path, file, "format_version", 1));
    MM_TRY_GOTO(st, done, create_group(w, file, &group));
    MM_TRY_GOTO(st, done, mm_h5_contiguous(w->tmp_path, &properties));
    for (int i = 0; i < w->table->n_tensors; i++)
        MM_TRY_GOTO(st, done, create_dataset(w, group, properties, i));
    mm_h5_close(&group);
    st = mm_h5_finish(w->tmp_path, &file);
done:
    mm_h5_close(&properties);
    mm_h5_close(&group);
    mm_h5_close(&file);
    return st;
}

static mm_status write_texts(const mm_weights_writer *w, hid_t file,
                             const char *model, const char *provenance,
                             const char *manifest)
{
    const char *path = w->tmp_path;
    if (model && strlen(model) < MAX_ATTRIBUTE_BYTES)
        MM_TRY(mm_h5_write_text_attribute(path, file, "model", model));
    else if (model)
        MM_TRY(mm_h5_write_text(path, file, "model_config", model));
    if (provenance)
        MM_TRY(mm_h5_write_text(path, file, "provenance", provenance));
    return mm_h5_write_text(path, file, "manifest", manifest);
}

static mm_status finish_valid(const mm_weights_writer *w, const uint32_t *crc,
                              const char *model, const char *provenance)
{
    bool long_model = model && strlen(model) >= MAX_ATTRIBUTE_BYTES;
    const char *const names[] = {"/model_config", "/provenance", NULL};
    const char *const texts[] = {long_model ? model : NULL, provenance, NULL};
    char *manifest = NULL;
    hid_t file = MM_H5_NONE;
    mm_status st;

    MM_TRY_GOTO(st, done,
                mm_manifest_write(w->table, crc, names, texts, &manifest));
    MM_TRY_GOTO(st, done, mm_h5_open(w->tmp_path, true, &file));
    MM_TRY_GOTO(st, done, write_texts(w, file, model, provenance, manifest));
    st = mm_h5_finish(w->tmp_path, &file);
done:
    mm_h5_close(&file);
    free(manifest);
    return st;
}

/* JSON is UTF-8. What a merge's input has for a model need not be JSON. */
static mm_status finish(const mm_weights_writer *w, const uint32_t *crc,
                        const char *model, const char *provenance)
{
    if (!model || mm_utf8_is_valid(model))
        return finish_valid(w, crc, model, provenance);
    char *stored = mm_utf8_escape(model);
    mm_status st =
        stored ? finish_valid(w, crc, stored, provenance)
               : mm_fail(MM_E_MEMORY, "%s: no memory to write it", w->path);
    free(stored);
    return st;
}

mm_status mm_checkpoint_begin(mm_comm *comm, const char *path,
                              const mm_tensor_table *table,
                              mm_weights_writer **writer)
{
    static const mm_weights_format format = {
        .check = check_names,
        .create = create_structure,
        .finish = finish,
        .has_checksums = true,
    };
    const mm_weights_content content = {&format, MM_ELEM_F32, NULL, NULL};
    return mm_weights_writer_begin(comm, path, table, &content, writer);
}

mm_status mm_checkpoint_save(mm_comm *comm, const char *path,
                             const mm_tensor_table *table, const float *values,
                             const char *model, const char *provenance)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(path),
                         MM_SAME_BYTES(values, table->n_elems * 4)));
    mm_weights_writer *w;
    MM_TRY(mm_checkpoint_begin(comm, path, table, &w));
    mm_range own =
        mm_partition(table->n_elems, mm_comm_rank(comm), mm_comm_n_ranks(comm));
    mm_status st = mm_weights_writer_write(w, own.lo, own.hi, values + own.lo);
    return mm_weights_writer_commit(&w, st, model, provenance);
}
