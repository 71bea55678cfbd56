#ifndef MAGMAX_IO_WEIGHTS_TORCH_TENSOR_H
#define MAGMAX_IO_WEIGHTS_TORCH_TENSOR_H

#include "io/python/pickle.h"
#include "io/weights/number_types.h"
#include "src/base/tensor_table.h"

/** What may be called in a pickle of PyTorch: makers of tensors, containers and
 * numbers, all of which are only data here. Ends with NULL. */
extern const char *const mm_torch_callables[];

/** A tensor as its pickle describes it. */
typedef struct mm_torch_tensor {
    mm_pickle_text storage; /* the name of its record below data/ */
    mm_elem_type type;
    char type_name[16];
    int64_t storage_elems; /* as the pickle says */
    int64_t off_elems;     /* of its first element in the storage */
    int n_dims;
    int64_t shape[MM_MAX_DIMS], strides[MM_MAX_DIMS];
    int64_t n_elems;
    int64_t span_elems; /* from its first element to its last */
    bool is_contiguous; /* in the order of indices */
} mm_torch_tensor;

/** Whether a value (or NULL) is a tensor or parameter. */
bool mm_torch_is_tensor(const mm_pickle_value *value);

/**
 * Read a tensor's description.
 *
 * Errors   MM_E_FORMAT, without the tensor's name: shapes, strides or offsets
 *          that are not numbers, overflow, or reach out of the storage; more
 *          elements than the storage has.
 */
mm_status mm_torch_tensor_read(const mm_pickle_value *value,
                               mm_torch_tensor *tensor);

#endif
