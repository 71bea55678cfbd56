/* Reading and writing a classification head, and scaling its rows. */

#include "src/model/head.h"

#include "io/hdf5/array_file.h"
#include "io/weights/weights.h"

#include <math.h>
#include <stdlib.h>

/* A short file can claim any number of them. */
enum { MOST_TEXTS = 1 << 24 };

static mm_status read_weight(mm_weights *file, const char *path,
                             int64_t embed_dim, mm_head *head)
{
    const mm_tensor_table *table = mm_weights_table(file);
    int at = mm_tensor_table_find(table, "weight");
    if (at < 0)
        return mm_fail(MM_E_FORMAT,
                       "%s: a head has one tensor 'weight'; this file has none",
                       path);
    const mm_tensor *tensor = &table->tensors[at];
    char shape[192];
    mm_tensor_shape_text(tensor, shape);
    if (tensor->n_dims != 2 || tensor->shape[0] < 1)
        return mm_fail(MM_E_FORMAT,
                       "%s: the head's weight has shape %s, not "
                       "[classes, embed_dim]",
                       path, shape);
    if (tensor->shape[0] > INT32_MAX)
        return mm_fail(MM_E_FORMAT,
                       "%s: the head's weight has shape %s: more classes than "
                       "any data set has",
                       path, shape);
    if (tensor->shape[1] != embed_dim)
        return mm_fail(MM_E_FORMAT,
                       "%s: the head's weight has shape %s, but the model's "
                       "embed_dim is %lld",
                       path, shape, (long long)embed_dim);
    MM_TRY(mm_head_init(tensor->shape[0], embed_dim, head));
    return mm_weights_read(file, tensor->off_elems,
                           tensor->off_elems + tensor->n_elems, head->weight);
}

static mm_status read_texts(const char *path, mm_head *head)
{
    int64_t n;
    MM_TRY(mm_array_file_read_strings(path, "class_names", MOST_TEXTS,
                                      &head->class_names, &n));
    if (head->class_names && n != head->n_classes)
        return mm_fail(MM_E_FORMAT,
                       "%s: the head has %lld rows and %lld class_names", path,
                       (long long)head->n_classes, (long long)n);
    return mm_array_file_read_strings(path, "prompts", MOST_TEXTS,
                                      &head->prompts, &head->n_prompts);
}

mm_status mm_head_read(const char *path, int64_t embed_dim, mm_head *head)
{
    mm_weights *file = NULL;
    MM_TRY(mm_weights_open(path, &file));
    mm_status st = read_weight(file, path, embed_dim, head);
    mm_weights_close(&file);
    if (st == MM_OK)
        st = read_texts(path, head);
    if (st != MM_OK)
        mm_head_clear(head);
    return st;
}

void mm_head_clear(mm_head *head)
{
    free(head->weight);
    free(head->class_names);
    free(head->prompts);
    *head = (mm_head){0};
}

mm_status mm_head_write(const char *path, const mm_head *head,
                        const char *provenance)
{
    int n = 0;
    mm_array arrays[4];
    arrays[n++] = (mm_array){"weight",
                             MM_ARRAY_F32,
                             2,
                             {head->n_classes, head->embed_dim},
                             head->weight};
    if (head->class_names)
        arrays[n++] = (mm_array){"class_names",
                                 MM_ARRAY_STRINGS,
                                 1,
                                 {head->n_classes},
                                 head->class_names};
    if (head->prompts)
        arrays[n++] = (mm_array){
            "prompts", MM_ARRAY_STRINGS, 1, {head->n_prompts}, head->prompts};
    arrays[n++] = (mm_array){"provenance", MM_ARRAY_TEXT, 0, {0}, provenance};
    return mm_array_file_write(path, arrays, n);
}

mm_status mm_head_init(int64_t n_classes, int64_t embed_dim, mm_head *head)
{
    head->n_classes = n_classes;
    head->embed_dim = embed_dim;
    head->weight =
        malloc((size_t)(n_classes * embed_dim) * sizeof *head->weight);
    return head->weight ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for a head");
}

bool mm_head_set_length(double *row, int64_t n, double length)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += row[i] * row[i];
    if (!(squares > 0) || !isfinite(squares))
        return false;
    double factor = length / sqrt(squares);
    for (int64_t i = 0; i < n; i++)
        row[i] *= factor;
    return true;
}
