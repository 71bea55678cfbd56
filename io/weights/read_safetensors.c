/* Reads the header of a safetensors file: its tensors and where their bytes
 * are; read_elements.c reads the elements. */

#include "io/file.h"
#include "io/weights/weights_reader.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The format's own limit. */
static const uint64_t max_header_bytes = 100000000;

/* One tensor of the header, its bytes counted from the start of the data. */
typedef struct entry {
    const char *name;
    const json_t *shape;
    const char *dtype;
    int64_t begin, end;
    int place; /* in the header */
} entry;

/* Number types of the format that cannot be weights here: complex numbers, and
 * those smaller than a byte. */
static const struct {
    const char *name;
    int n_bits;
} other_dtypes[] = {{"C64", 64}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}};
enum { N_OTHER_DTYPES = sizeof other_dtypes / sizeof *other_dtypes };

/* 0 bits: no such type. */
static int bits_of_dtype(const char *name, mm_elem_type *type)
{
    for (int i = 0; i < MM_ELEM_OTHER; i++)
        if (strcmp(mm_elem_name((mm_elem_type)i), name) == 0) {
            *type = (mm_elem_type)i;
            return 8 * mm_elem_n_bytes(*type);
        }
    *type = MM_ELEM_OTHER;
    for (int i = 0; i < N_OTHER_DTYPES; i++)
        if (strcmp(other_dtypes[i].name, name) == 0)
            return other_dtypes[i].n_bits;
    return 0;
}

static mm_status fail(const mm_weights *weights, const char *name,
                      const char *what)
{
    return mm_fail(MM_E_FORMAT, "%s: tensor %s %s", weights->file->path, name,
                   what);
}

static mm_status read_header(const mm_weights *weights, char **header,
                             uint64_t *n_bytes)
{
    unsigned char size[8];
    MM_TRY(mm_file_read_at(weights->file->fd, weights->file->path, 0, size, 8));
    *n_bytes = 0;
    for (int i = 8; i-- > 0;)
        *n_bytes = *n_bytes << 8 | size[i];
    if (*n_bytes > max_header_bytes)
        return mm_fail(MM_E_FORMAT,
                       "%s: safetensors header of %llu bytes, at most %llu are "
                       "allowed",
                       weights->file->path, (unsigned long long)*n_bytes,
                       (unsigned long long)max_header_bytes);
    if (*n_bytes > (uint64_t)weights->file->n_bytes - 8)
        return mm_fail(MM_E_FORMAT,
                       "%s is truncated: its header has %llu bytes",
                       weights->file->path, (unsigned long long)*n_bytes);
    *header = malloc(*n_bytes + 1);
    if (!*header)
        return mm_fail(MM_E_MEMORY, "%s: no memory for its header",
                       weights->file->path);
    mm_status st = mm_file_read_at(weights->file->fd, weights->file->path, 8,
                                   *header, (int64_t)*n_bytes);
    if (st != MM_OK) {
        free(*header);
        *header = NULL;
    }
    return st;
}

static mm_status read_entry(const mm_weights *weights, const char *name,
                            const json_t *value, entry *e)
{
    const json_t *dtype = json_object_get(value, "dtype");
    const json_t *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) ||
        !json_is_array(offsets))
        return fail(weights, name, "has no dtype, shape or data_offsets");
    const json_t *begin = json_array_get(offsets, 0);
    const json_t *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) ||
        !json_is_integer(end))
        return fail(weights, name,
                    "has data_offsets that are not two integers");
    e->name = name;
    e->dtype = json_string_value(dtype);
    e->shape = shape;
    e->begin = json_integer_value(begin);
    e->end = json_integer_value(end);
    if (e->begin < 0 || e->begin > e->end)
        return fail(weights, name, "has impossible data_offsets");
    return MM_OK;
}

/* "model" and "provenance" are ours; others are ignored. */
static mm_status read_metadata(mm_weights *weights, const json_t *metadata)
{
    const char *key;
    const json_t *value;
    if (!json_is_object(metadata))
        return mm_fail(MM_E_FORMAT, "%s: __metadata__ is not an object",
                       weights->file->path);
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return mm_fail(MM_E_FORMAT, "%s: __metadata__ %s is not a string",
                           weights->file->path, key);
        const char *text = json_string_value(value);
        char **keep = strcmp(key, "model") == 0        ? &weights->model
                      : strcmp(key, "provenance") == 0 ? &weights->provenance
                                                       : NULL;
        if (keep && !*keep && *text == '{') {
            *keep = strdup(text);
            if (!*keep)
                return mm_fail(MM_E_MEMORY, "%s: no memory for its metadata",
                               weights->file->path);
        }
    }
    return MM_OK;
}

static mm_status read_entries(mm_weights *weights, json_t *root, entry *entries,
                              int *n_entries)
{
    const char *name;
    json_t *value;
    int n = 0;
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            MM_TRY(read_metadata(weights, value));
            continue;
        }
        MM_TRY(read_entry(weights, name, value, &entries[n]));
        entries[n].place = n;
        n++;
    }
    *n_entries = n;
    return MM_OK;
}

static int by_offset(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static mm_status add_entry(mm_weights *weights, const entry *e,
                           int64_t data_start)
{
    int64_t shape[MM_MAX_DIMS];
    mm_source source = {.off_bytes = data_start + e->begin};
    int64_t n_bits = bits_of_dtype(e->dtype, &source.type);
    if (n_bits == 0)
        return fail(weights, e->name, "has an unknown dtype");
    size_t n_dims = json_array_size(e->shape);
    if (n_dims > MM_MAX_DIMS)
        return fail(weights, e->name, "has too many dimensions");
    for (size_t i = 0; i < n_dims; i++) {
        const json_t *size = json_array_get(e->shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return fail(weights, e->name, "has an impossible shape");
        shape[i] = json_integer_value(size);
        if (__builtin_mul_overflow(n_bits, shape[i], &n_bits))
            return fail(weights, e->name, "has an impossible shape");
    }
    if (n_bits % 8 != 0 || n_bits / 8 != e->end - e->begin)
        return fail(weights, e->name,
                    "has data_offsets that do not fit its shape and dtype");
    snprintf(source.type_name, sizeof source.type_name, "%s", e->dtype);
    return mm_weights_add(weights, e->name, (int)n_dims, shape, &source);
}

static mm_status add_entries(mm_weights *weights, entry *entries, int n_entries,
                             int64_t data_start)
{
    int64_t covered = 0, n_bytes = weights->file->n_bytes - data_start;
    qsort(entries, (size_t)n_entries, sizeof *entries, by_offset);
    for (int i = 0; i < n_entries; i++) {
        if (entries[i].begin != covered)
            return fail(weights, entries[i].name,
                        entries[i].begin < covered
                            ? "overlaps another one"
                            : "leaves a hole before its data");
        covered = entries[i].end;
        if (covered > n_bytes)
            return mm_fail(MM_E_FORMAT,
                           "%s is truncated: tensor %s extends beyond its end",
                           weights->file->path, entries[i].name);
        MM_TRY(add_entry(weights, &entries[i], data_start));
    }
    if (covered != n_bytes)
        return mm_fail(MM_E_FORMAT,
                       "%s: %lld bytes at the end belong to no tensor",
                       weights->file->path, (long long)(n_bytes - covered));
    return MM_OK;
}

mm_status mm_weights_read_safetensors(mm_weights *weights)
{
    char *header = NULL;
    json_t *root = NULL;
    entry *entries = NULL;
    json_error_t error;
    uint64_t n_bytes;
    int n_entries;
    mm_status st;

    weights->kind = MM_WEIGHTS_SAFETENSORS;
    MM_TRY_GOTO(st, done, read_header(weights, &header, &n_bytes));
    root = json_loadb(header, n_bytes, JSON_REJECT_DUPLICATES, &error);
    if (n_bytes == 0 || header[0] != '{' || !json_is_object(root))
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT, "%s: safetensors header: %s",
                            weights->file->path,
                            root ? "is not a JSON object" : error.text));
    if (json_object_size(root) > MM_MAX_TENSORS)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT, "%s holds more than %d tensors",
                            weights->file->path, MM_MAX_TENSORS));
    entries = calloc(json_object_size(root) + 1, sizeof *entries);
    if (!entries)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_MEMORY, "%s: no memory for its header",
                            weights->file->path));
    MM_TRY_GOTO(st, done, read_entries(weights, root, entries, &n_entries));
    st = add_entries(weights, entries, n_entries, 8 + (int64_t)n_bytes);
done:
    free(entries);
    json_decref(root);
    free(header);
    return st;
}
