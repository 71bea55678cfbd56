#ifndef MAGMAX_SRC_BASE_TENSOR_TABLE_H
#define MAGMAX_SRC_BASE_TENSOR_TABLE_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { MM_MAX_DIMS = 8 };

/** One named tensor and where it lies in a flat buffer of elements. */
typedef struct mm_tensor {
    char *name;
    int n_dims;
    int64_t shape[MM_MAX_DIMS];
    int64_t n_elems;
    int64_t off_elems; /* of its first element in the flat buffer */
} mm_tensor;

/**
 * The tensors of a model in order, back to back in one flat buffer: parameters,
 * gradients, moments, task vectors and merge slices are all ranges of such a
 * buffer. Start from {0}.
 */
typedef struct mm_tensor_table {
    mm_tensor *tensors;
    int n_tensors;
    int64_t n_elems; /* of all together */
} mm_tensor_table;

/**
 * Append a tensor behind the last one.
 *
 * Memory   Name and shape are copied.
 * Ranks    Local.
 * Errors   MM_E_ARG for a name that is there already, too many dimensions or
 *          a size beyond int64; MM_E_MEMORY.
 */
mm_status mm_tensor_table_add(mm_tensor_table *table, const char *name,
                              int n_dims, const int64_t *shape);
void mm_tensor_table_clear(mm_tensor_table *table);

/** Index of a name, or -1. */
int mm_tensor_table_find(const mm_tensor_table *table, const char *name);

/** Index of the tensor that holds element `elem` (0 <= elem < n_elems). */
int mm_tensor_table_at(const mm_tensor_table *table, int64_t elem);

/** One number has shape [] or [1], which are the same here. */
bool mm_tensor_same_shape(const mm_tensor *a, const mm_tensor *b);

/** "[768, 3, 16, 16]" into `text`. */
void mm_tensor_shape_text(const mm_tensor *tensor, char text[192]);

/** Names of image-tower tensors start so. */
#define MM_VISUAL_PREFIX "visual."

bool mm_tensor_is_visual(const mm_tensor *tensor);

#endif
