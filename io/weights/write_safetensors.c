/* Writes weights files in the safetensors format: the header first, then every
 * rank its elements. */

#include "io/file.h"
#include "io/weights/weights_format.h"
#include "src/base/utf8.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The format's own limit, and what its readers like the header's end to be a
 * multiple of. */
enum { MAX_HEADER_BYTES = 100000000, ALIGNMENT = 8 };

static mm_status check_names(const mm_weights_writer *w)
{
    for (int i = 0; i < w->table->n_tensors; i++)
        if (strcmp(w->table->tensors[i].name, "__metadata__") == 0)
            return mm_fail(MM_E_ARG,
                           "%s: a tensor cannot be named \"__metadata__\" in a "
                           "safetensors file",
                           w->path);
    return MM_OK;
}

/* JSON, which is UTF-8 and stays as it stands, or what is not. */
static json_t *text_json(const char *text)
{
    return mm_utf8_is_valid(text) ? json_string(text) : mm_utf8_json(text);
}

/* NULL without memory. */
static json_t *metadata_of(const mm_weights_content *content)
{
    json_t *object = json_pack("{s:s}", "format", "pt");
    if (content->model &&
        json_object_set_new(object, "model", text_json(content->model)) != 0)
        goto failed;
    if (content->provenance &&
        json_object_set_new(object, "provenance",
                            text_json(content->provenance)) != 0)
        goto failed;
    return object;
failed:
    json_decref(object);
    return NULL;
}

static json_t *entry_of(const mm_tensor *tensor, mm_elem_type type)
{
    int64_t elem_bytes = mm_elem_n_bytes(type);
    int64_t begin = tensor->off_elems * elem_bytes;
    json_t *shape = json_array();
    for (int i = 0; i < tensor->n_dims; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", mm_elem_name(type),
                     "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + tensor->n_elems * elem_bytes));
}

static bool add_entry(json_t *root, const mm_tensor *tensor, mm_elem_type type)
{
    char *name = mm_utf8_escape(tensor->name);
    bool fits =
        name && json_object_set_new(root, name, entry_of(tensor, type)) == 0;
    free(name);
    return fits;
}

/* Gives *header (free), padded with spaces. */
static mm_status make_header(const mm_weights_writer *w, char **header,
                             size_t *n_bytes)
{
    const mm_tensor_table *table = w->table;
    json_t *root = json_object();
    char *text = NULL;
    bool fits = json_object_set_new(root, "__metadata__",
                                    metadata_of(&w->content)) == 0;
    for (int i = 0; fits && i < table->n_tensors; i++)
        fits = add_entry(root, &table->tensors[i], w->content.type);
    if (fits)
        text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text)
        return mm_fail(MM_E_MEMORY, "%s: no memory for its header", w->path);
    size_t length = strlen(text);
    *n_bytes = (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char *padded = realloc(text, *n_bytes + 1);
    *header = padded ? padded : text;
    if (!padded)
        return mm_fail(MM_E_MEMORY, "%s: no memory for its header", w->path);
    memset(padded + length, ' ', *n_bytes - length);
    if (*n_bytes > MAX_HEADER_BYTES)
        return mm_fail(MM_E_ARG, "%s: its header has %zu bytes, at most %d fit",
                       w->path, *n_bytes, MAX_HEADER_BYTES);
    return MM_OK;
}

static mm_status write_header(const mm_weights_writer *w, const char *header,
                              size_t n_bytes, int64_t data_bytes)
{
    uint64_t size = n_bytes;
    int fd = open(w->tmp_path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", w->tmp_path);
    mm_status st = mm_file_write_at(fd, w->tmp_path, 0, &size, 8);
    if (st == MM_OK)
        st = mm_file_write_at(fd, w->tmp_path, 8, header, (int64_t)n_bytes);
    /* The file's size is right also where the last tensors are empty. */
    if (st == MM_OK && ftruncate(fd, 8 + (int64_t)n_bytes + data_bytes) != 0)
        st = mm_fail_errno("cannot write %s", w->tmp_path);
    if (close(fd) != 0 && st == MM_OK)
        st = mm_fail_errno("cannot write %s", w->tmp_path);
    return st;
}

static mm_status create_structure(mm_weights_writer *w)
{
    const mm_tensor_table *table = w->table;
    int64_t elem_bytes = mm_elem_n_bytes(w->content.type);
    int64_t data_bytes = table->n_elems * elem_bytes;
    char *header = NULL;
    size_t n_bytes = 0;
    mm_status st;

    MM_TRY_GOTO(st, done, make_header(w, &header, &n_bytes));
    int64_t start = 8 + (int64_t)n_bytes;
    MM_TRY_GOTO(st, done, mm_weights_writer_reserve(w, start + data_bytes));
    for (int i = 0; i < table->n_tensors; i++)
        w->off_bytes[i] = start + table->tensors[i].off_elems * elem_bytes;
    st = write_header(w, header, n_bytes, data_bytes);
done:
    free(header);
    return st;
}

mm_status mm_safetensors_begin(mm_comm *comm, const char *path,
                               const mm_tensor_table *table, mm_elem_type type,
                               const char *model, const char *provenance,
                               mm_weights_writer **writer)
{
    static const mm_weights_format format = {
        .check = check_names,
        .create = create_structure,
    };
    const mm_weights_content content = {&format, type, model, provenance};
    *writer = NULL;
    if (type != MM_ELEM_F32 && type != MM_ELEM_F16 && type != MM_ELEM_BF16)
        return mm_fail(MM_E_ARG,
                       "%s: weights are written as F32, F16 or BF16, not %s",
                       path, mm_elem_name(type));
    return mm_weights_writer_begin(comm, path, table, &content, writer);
}
