#include "io/file.h"
#include "io/weights/weights_reader.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_INDEX_BYTES = 100000000, /* as a header of safetensors */
    MAX_FILES = 512              /* each stays open */
};

/** The index while its files are opened, one after the other. */
struct mm_weights_index {
    const char *path;
    const json_t *weight_map;
    const char *file; /* the one that is open, as the map calls it */
};

/* Names lead to files beside the index or below, and nowhere else. */
static mm_status check_name(const char *path, const char *name)
{
    bool inside = *name && *name != '/';
    for (const char *part = name; inside && part; part = strchr(part, '/')) {
        part += *part == '/';
        inside = strncmp(part, "..", 2) != 0 || (part[2] && part[2] != '/');
    }
    if (!inside)
        return mm_fail(MM_E_FORMAT,
                       "%s: the file name \"%s\" leads out of its folder", path,
                       name);
    return MM_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The map's files, each once, in byte order: names[MAX_FILES]. */
static mm_status list_files(const char *path, const json_t *map,
                            const char **names, int *n_names)
{
    size_t n = 0, n_all = json_object_size(map);
    const char **all = calloc(n_all + 1, sizeof *all);
    const char *tensor;
    json_t *value;
    mm_status st = MM_OK;
    if (!all)
        return mm_fail(MM_E_MEMORY, "%s: no memory for its names", path);
    json_object_foreach((json_t *)map, tensor, value)
    {
        all[n] = json_string_value(value);
        if (!all[n])
            MM_TRY_GOTO(st, done,
                        mm_fail(MM_E_FORMAT,
                                "%s: the file of tensor %s is no string", path,
                                tensor));
        MM_TRY_GOTO(st, done, check_name(path, all[n]));
        n++;
    }
    qsort(all, n_all, sizeof *all, by_name);
    for (size_t i = 0; i < n_all; i++) {
        if (i > 0 && strcmp(all[i - 1], all[i]) == 0)
            continue;
        if (*n_names == MAX_FILES)
            MM_TRY_GOTO(st, done,
                        mm_fail(MM_E_FORMAT, "%s names more than %d files",
                                path, MAX_FILES));
        names[(*n_names)++] = all[i];
    }
done:
    free(all);
    return st;
}

mm_status mm_weights_index_check(const mm_weights *weights, const char *name,
                                 bool *wanted)
{
    const struct mm_weights_index *index = weights->index;
    const char *file =
        json_string_value(json_object_get(index->weight_map, name));
    if (!file)
        return mm_fail(MM_E_FORMAT, "%s does not list tensor %s of %s",
                       index->path, name, weights->file->path);
    *wanted = strcmp(file, index->file) == 0;
    return MM_OK;
}

static mm_status open_one(mm_weights *weights, const char *name)
{
    const char *slash = strrchr(weights->path, '/');
    int folder = slash ? (int)(slash - weights->path) + 1 : 0;
    char *path;
    if (asprintf(&path, "%.*s%s", folder, weights->path, name) < 0)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    mm_status st = mm_weights_open_file(weights, path, true);
    free(path);
    if (st == MM_E_IO)
        mm_fail_within(st, "%s", weights->path);
    return st;
}

static mm_status check_all_found(const mm_weights *weights, const json_t *map)
{
    const char *tensor;
    json_t *value;
    if ((size_t)weights->table.n_tensors == json_object_size(map))
        return MM_OK;
    json_object_foreach((json_t *)map, tensor, value)
    {
        if (mm_tensor_table_find(&weights->table, tensor) < 0)
            return mm_fail(MM_E_FORMAT, "%s: %s lacks the tensor %s",
                           weights->path, json_string_value(value), tensor);
    }
    return MM_OK;
}

mm_status mm_weights_open_index(mm_weights *weights)
{
    const char *names[MAX_FILES];
    struct mm_weights_index index = {.path = weights->path};
    json_error_t error;
    json_t *root = NULL;
    char *text = NULL;
    int n_names = 0;
    mm_status st;

    MM_TRY_GOTO(st, done,
                mm_file_read_text(weights->path, MAX_INDEX_BYTES, &text));
    root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT, "%s: line %d: %s", weights->path,
                            error.line, error.text));
    index.weight_map = json_object_get(root, "weight_map");
    if (!json_is_object(index.weight_map) ||
        json_object_size(index.weight_map) > MM_MAX_TENSORS)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: no index of weights: it needs a weight_map of "
                            "at most %d tensors",
                            weights->path, MM_MAX_TENSORS));
    MM_TRY_GOTO(st, done,
                list_files(weights->path, index.weight_map, names, &n_names));
    weights->index = &index;
    for (int i = 0; i < n_names; i++) {
        index.file = names[i];
        MM_TRY_GOTO(st, done, open_one(weights, names[i]));
    }
    st = check_all_found(weights, index.weight_map);
done:
    weights->index = NULL;
    json_decref(root);
    free(text);
    return st;
}
