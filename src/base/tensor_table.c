/* Named tensors, back to back in one flat buffer: adding, finding, and
 * comparing shapes. */

#include "src/base/tensor_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mm_status mm_tensor_table_add(mm_tensor_table *table, const char *name,
                              int n_dims, const int64_t *shape)
{
    if (n_dims < 0 || n_dims > MM_MAX_DIMS)
        return mm_fail(MM_E_ARG, "tensor %s has %d dimensions, at most %d",
                       name, n_dims, MM_MAX_DIMS);
    if (mm_tensor_table_find(table, name) >= 0)
        return mm_fail(MM_E_ARG, "tensor %s appears twice", name);
    mm_tensor tensor = {.n_dims = n_dims, .n_elems = 1};
    for (int i = 0; i < n_dims; i++) {
        tensor.shape[i] = shape[i];
        if (shape[i] < 0 ||
            __builtin_mul_overflow(tensor.n_elems, shape[i], &tensor.n_elems))
            return mm_fail(MM_E_ARG, "tensor %s has an impossible shape", name);
    }
    tensor.off_elems = table->n_elems;
    int64_t n_elems;
    if (__builtin_add_overflow(table->n_elems, tensor.n_elems, &n_elems))
        return mm_fail(MM_E_ARG, "tensor %s has an impossible shape", name);

    /* Grow at powers of two: no capacity field to keep. */
    int n = table->n_tensors;
    if ((n & (n - 1)) == 0) {
        size_t capacity = n ? 2 * (size_t)n : 1;
        mm_tensor *grown =
            realloc(table->tensors, capacity * sizeof *table->tensors);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for a table of tensors");
        table->tensors = grown;
    }
    tensor.name = strdup(name);
    if (!tensor.name)
        return mm_fail(MM_E_MEMORY, "no memory for a table of tensors");
    table->tensors[n] = tensor;
    table->n_tensors = n + 1;
    table->n_elems = n_elems;
    return MM_OK;
}

void mm_tensor_table_clear(mm_tensor_table *table)
{
    for (int i = 0; i < table->n_tensors; i++)
        free(table->tensors[i].name);
    free(table->tensors);
    *table = (mm_tensor_table){0};
}

int mm_tensor_table_find(const mm_tensor_table *table, const char *name)
{
    for (int i = 0; i < table->n_tensors; i++)
        if (strcmp(table->tensors[i].name, name) == 0)
            return i;
    return -1;
}

int mm_tensor_table_at(const mm_tensor_table *table, int64_t elem)
{
    int lo = 0, hi = table->n_tensors - 1;
    while (lo < hi) {
        int mid = lo + (hi - lo + 1) / 2;
        if (table->tensors[mid].off_elems <= elem)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

bool mm_tensor_same_shape(const mm_tensor *a, const mm_tensor *b)
{
    if (a->n_elems == 1 && b->n_elems == 1 && a->n_dims <= 1 && b->n_dims <= 1)
        return true;
    return a->n_dims == b->n_dims &&
           memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof a->shape[0]) ==
               0;
}

void mm_tensor_shape_text(const mm_tensor *tensor, char text[192])
{
    int used = snprintf(text, 192, "[");
    for (int i = 0; i < tensor->n_dims; i++)
        used += snprintf(text + used, (size_t)(192 - used), "%s%lld",
                         i ? ", " : "", (long long)tensor->shape[i]);
    snprintf(text + used, (size_t)(192 - used), "]");
}

bool mm_tensor_is_visual(const mm_tensor *tensor)
{
    return strncmp(tensor->name, MM_VISUAL_PREFIX,
                   sizeof MM_VISUAL_PREFIX - 1) == 0;
}
