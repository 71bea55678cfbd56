#include "src/model/head.h"

#include "io/weights.h"

#include <stdlib.h>

static mm_status read_weight(mm_weights *file, const char *path,
                             int64_t embed_dim, mm_head *head)
{
    const mm_tensor_table *table = mm_weights_table(file);
    int at = mm_tensor_table_find(table, "weight");
    if (at < 0)
        return mm_fail(MM_E_FORMAT,
                       "%s: a head has one tensor 'weight', this file has none",
                       path);
    const mm_tensor *tensor = &table->tensors[at];
    char shape[192];
    mm_tensor_shape_text(tensor, shape);
    if (tensor->n_dims != 2 || tensor->shape[0] < 1)
        return mm_fail(MM_E_FORMAT,
                       "%s: the head's weight has shape %s, not "
                       "[classes, embed_dim]",
                       path, shape);
    if (tensor->shape[1] != embed_dim)
        return mm_fail(MM_E_FORMAT,
                       "%s: the head's weight has shape %s, but the model's "
                       "embed_dim is %lld",
                       path, shape, (long long)embed_dim);
    head->n_classes = tensor->shape[0];
    head->embed_dim = embed_dim;
    head->weight = malloc((size_t)tensor->n_elems * sizeof *head->weight);
    if (!head->weight)
        return mm_fail(MM_E_MEMORY, "no memory for the head of %s", path);
    return mm_weights_read(file, tensor->off_elems,
                           tensor->off_elems + tensor->n_elems, head->weight);
}

mm_status mm_head_read(const char *path, int64_t embed_dim, mm_head *head)
{
    mm_weights *file = NULL;
    MM_TRY(mm_weights_open(path, &file));
    mm_status st = read_weight(file, path, embed_dim, head);
    mm_weights_close(&file);
    if (st != MM_OK)
        mm_head_clear(head);
    return st;
}

void mm_head_clear(mm_head *head)
{
    free(head->weight);
    *head = (mm_head){0};
}
