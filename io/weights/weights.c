/* The table of an open weights file: how readers fill it, and how callers find
 * their tensors in it. */

#include "io/weights/weights_reader.h"

#include "io/file.h"

#include <stdlib.h>
#include <unistd.h>

mm_status mm_weights_add(mm_weights *weights, const char *name, int n_dims,
                         const int64_t *shape, const mm_source *source)
{
    mm_tensor_table *table = &weights->table;
    const mm_weights_file *file = weights->file;
    int n = table->n_tensors;
    bool wanted = true;
    if (weights->index)
        MM_TRY(mm_weights_index_wants(weights->index, weights->index_file, name,
                                      &wanted));
    if (!wanted)
        return MM_OK;
    if (n >= MM_MAX_TENSORS)
        return mm_fail(MM_E_FORMAT, "%s holds more than %d tensors",
                       weights->path, MM_MAX_TENSORS);
    if ((n & (n - 1)) == 0) {
        size_t capacity = n ? 2 * (size_t)n : 1;
        mm_source *grown =
            realloc(weights->sources, capacity * sizeof *weights->sources);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for a table of tensors");
        weights->sources = grown;
    }
    mm_status st = mm_tensor_table_add(table, name, n_dims, shape);
    if (st != MM_OK)
        return mm_fail_within(st == MM_E_ARG ? MM_E_FORMAT : st, "%s",
                              file->path);
    weights->sources[n] = *source;
    weights->sources[n].file = (int)(file - weights->files);
    weights->has_checksums |= source->has_crc;

    int64_t n_elems =
        source->strided ? source->span_elems : table->tensors[n].n_elems;
    int64_t n_bytes, end;
    if (__builtin_mul_overflow(n_elems, mm_elem_n_bytes(source->type),
                               &n_bytes) ||
        __builtin_add_overflow(source->off_bytes, n_bytes, &end) ||
        source->off_bytes < 0 || end > file->n_bytes)
        return mm_fail(MM_E_FORMAT,
                       "%s is truncated: tensor %s extends beyond its end",
                       file->path, name);
    return MM_OK;
}

void mm_weights_close(mm_weights **weights)
{
    mm_weights *w = *weights;
    if (!w)
        return;
    for (int i = 0; i < w->n_files; i++) {
        if (w->files[i].fd >= 0)
            close(w->files[i].fd);
        free(w->files[i].path);
    }
    free(w->files);
    mm_checksum_end(&w->sum);
    mm_tensor_table_clear(&w->table);
    free(w->span);
    free(w->buffer);
    free(w->found);
    free(w->provenance);
    free(w->model);
    free(w->stretches);
    free(w->sources);
    free(w->path);
    free(w);
    *weights = NULL;
}

const char *mm_weights_path(const mm_weights *weights)
{
    return weights->path;
}

bool mm_weights_is_read_from(const mm_weights *weights, const char *path)
{
    bool found = mm_file_same(weights->path, path);
    for (int i = 0; i < weights->n_files && !found; i++)
        found = mm_file_same(weights->files[i].path, path);
    return found;
}

const mm_tensor_table *mm_weights_table(const mm_weights *weights)
{
    return &weights->table;
}

const char *mm_weights_model(const mm_weights *weights)
{
    return weights->model;
}

const char *mm_weights_provenance(const mm_weights *weights)
{
    return weights->provenance;
}

mm_weights_kind mm_weights_get_kind(const mm_weights *weights)
{
    return weights->kind;
}

mm_elem_type mm_weights_type(const mm_weights *weights, int tensor)
{
    return weights->sources[tensor].type;
}

static mm_status find_all(const mm_weights *w, const mm_tensor_table *wanted,
                          int *found)
{
    for (int i = 0; i < wanted->n_tensors; i++) {
        const mm_tensor *tensor = &wanted->tensors[i];
        found[i] = mm_tensor_table_find(&w->table, tensor->name);
        if (found[i] < 0)
            return mm_fail(MM_E_FORMAT, "%s does not contain the tensor %s",
                           w->path, tensor->name);
        const mm_tensor *there = &w->table.tensors[found[i]];
        if (!mm_tensor_same_shape(tensor, there)) {
            char has[192], needs[192];
            mm_tensor_shape_text(there, has);
            mm_tensor_shape_text(tensor, needs);
            return mm_fail(MM_E_FORMAT,
                           "%s: tensor %s has shape %s, but the model needs %s",
                           w->path, tensor->name, has, needs);
        }
    }
    return MM_OK;
}

/* A model of another architecture may have more blocks; tensors that are not of
 * the image tower are ignored. */
static mm_status refuse_unexpected(const mm_weights *w,
                                   const mm_tensor_table *wanted)
{
    bool any_visual = false;
    for (int i = 0; i < wanted->n_tensors && !any_visual; i++)
        any_visual = mm_tensor_is_visual(&wanted->tensors[i]);
    for (int i = 0; any_visual && i < w->table.n_tensors; i++) {
        const mm_tensor *tensor = &w->table.tensors[i];
        if (mm_tensor_is_visual(tensor) &&
            mm_tensor_table_find(wanted, tensor->name) < 0)
            return mm_fail(MM_E_FORMAT,
                           "%s has an unexpected tensor, which the model "
                           "does not have: %s",
                           w->path, tensor->name);
    }
    return MM_OK;
}

mm_status mm_weights_bind(mm_weights *weights, const mm_tensor_table *wanted)
{
    int *found = calloc((size_t)wanted->n_tensors + 1, sizeof *found);
    mm_checksum sum = {0};
    mm_status st = MM_OK;

    if (!found)
        MM_TRY_GOTO(st, done, mm_fail(MM_E_MEMORY, "no memory for a table"));
    MM_TRY_GOTO(st, done, find_all(weights, wanted, found));
    MM_TRY_GOTO(st, done, refuse_unexpected(weights, wanted));
    MM_TRY_GOTO(st, done, mm_checksum_begin(&sum, wanted));
    mm_checksum_end(&weights->sum);
    free(weights->found);
    weights->sum = sum;
    weights->found = found;
    weights->bound = wanted;
    found = NULL;
done:
    free(found);
    return st;
}
