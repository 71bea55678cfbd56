/* Reads the index of a model that is stored in several files, and checks that
 * the files hold what it lists. */

#include "io/weights/weights_index.h"

#include "io/file.h"
#include "io/weights/weights.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_INDEX_BYTES = 100000000, /* as a header of safetensors */
    MAX_FILES = 512              /* each stays open */
};

struct mm_weights_index {
    char *path;
    json_t *root;
    const json_t *weight_map;     /* of root: tensor -> file name */
    const char *names[MAX_FILES]; /* of weight_map, each once, in byte order */
    char *paths[MAX_FILES];
    int n_files;
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

/** The map's files, each once. */
static mm_status list_files(mm_weights_index *index)
{
    size_t n = 0, n_all = json_object_size(index->weight_map);
    const char **all = calloc(n_all + 1, sizeof *all);
    const char *tensor;
    json_t *value;
    mm_status st = MM_OK;
    if (!all)
        return mm_fail(MM_E_MEMORY, "%s: no memory for its names", index->path);
    json_object_foreach((json_t *)index->weight_map, tensor, value)
    {
        all[n] = json_string_value(value);
        if (!all[n])
            MM_TRY_GOTO(st, done,
                        mm_fail(MM_E_FORMAT,
                                "%s: the file of tensor %s is not a string",
                                index->path, tensor));
        MM_TRY_GOTO(st, done, check_name(index->path, all[n]));
        n++;
    }
    qsort(all, n_all, sizeof *all, by_name);
    for (size_t i = 0; i < n_all; i++) {
        if (i > 0 && strcmp(all[i - 1], all[i]) == 0)
            continue;
        if (index->n_files == MAX_FILES)
            MM_TRY_GOTO(st, done,
                        mm_fail(MM_E_FORMAT, "%s names more than %d files",
                                index->path, MAX_FILES));
        index->names[index->n_files++] = all[i];
    }
done:
    free(all);
    return st;
}

/** Files lie beside the index. */
static mm_status make_paths(mm_weights_index *index)
{
    const char *slash = strrchr(index->path, '/');
    int folder = slash ? (int)(slash - index->path) + 1 : 0;
    for (int i = 0; i < index->n_files; i++) {
        if (asprintf(&index->paths[i], "%.*s%s", folder, index->path,
                     index->names[i]) < 0) {
            index->paths[i] = NULL;
            return mm_fail(MM_E_MEMORY, "no memory for a file name");
        }
    }
    return MM_OK;
}

static mm_status read_index(mm_weights_index *index)
{
    json_error_t error;
    char *text = NULL;
    MM_TRY(mm_file_read_text(index->path, MAX_INDEX_BYTES, &text));
    index->root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!index->root)
        return mm_fail(MM_E_FORMAT, "%s: line %d: %s", index->path, error.line,
                       error.text);
    index->weight_map = json_object_get(index->root, "weight_map");
    if (!json_is_object(index->weight_map) ||
        json_object_size(index->weight_map) > MM_MAX_TENSORS)
        return mm_fail(MM_E_FORMAT,
                       "%s: not an index of weights: it needs a weight_map of "
                       "at most %d tensors",
                       index->path, MM_MAX_TENSORS);
    MM_TRY(list_files(index));
    return make_paths(index);
}

mm_status mm_weights_index_read(const char *path, mm_weights_index **index)
{
    mm_weights_index *i = *index = calloc(1, sizeof *i);
    mm_status st = MM_OK;
    if (i)
        i->path = strdup(path);
    if (!i || !i->path)
        st = mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    if (st == MM_OK)
        st = read_index(i);
    if (st != MM_OK)
        mm_weights_index_destroy(index);
    return st;
}

void mm_weights_index_destroy(mm_weights_index **index)
{
    mm_weights_index *i = *index;
    if (!i)
        return;
    for (int file = 0; file < i->n_files; file++)
        free(i->paths[file]);
    json_decref(i->root);
    free(i->path);
    free(i);
    *index = NULL;
}

int mm_weights_index_n_files(const mm_weights_index *index)
{
    return index->n_files;
}

const char *mm_weights_index_path(const mm_weights_index *index, int file)
{
    return index->paths[file];
}

mm_status mm_weights_index_wants(const mm_weights_index *index, int file,
                                 const char *tensor, bool *wanted)
{
    const char *name =
        json_string_value(json_object_get(index->weight_map, tensor));
    if (!name)
        return mm_fail(MM_E_FORMAT, "%s does not list tensor %s of %s",
                       index->path, tensor, index->paths[file]);
    *wanted = strcmp(name, index->names[file]) == 0;
    return MM_OK;
}

mm_status mm_weights_index_check_complete(const mm_weights_index *index,
                                          const mm_tensor_table *table)
{
    const char *tensor;
    json_t *value;
    if ((size_t)table->n_tensors == json_object_size(index->weight_map))
        return MM_OK;
    json_object_foreach((json_t *)index->weight_map, tensor, value)
    {
        if (mm_tensor_table_find(table, tensor) < 0)
            return mm_fail(MM_E_FORMAT, "%s: %s does not contain the tensor %s",
                           index->path, json_string_value(value), tensor);
    }
    return MM_OK;
}
