#ifndef MAGMAX_IO_WEIGHTS_IMPL_H
#define MAGMAX_IO_WEIGHTS_IMPL_H

#include "io/checksum.h"
#include "io/convert.h"
#include "io/weights.h"

/**
 * Between weights.c and the readers of formats: a reader fills in the table,
 * where each tensor lies, and the texts; weights.c reads the elements.
 */

/** A file with more is not a model: names are compared one by one. */
enum { MM_MAX_TENSORS = 16384 };

/** Where a tensor of the file lies. */
typedef struct mm_source {
    int64_t off_bytes;
    mm_elem_type type;
    char type_name[16]; /* as the file calls it, for messages */
} mm_source;

struct mm_weights {
    char *path;
    int fd;
    int64_t n_bytes; /* of the file */
    mm_tensor_table table;
    mm_source *sources; /* [table.n_tensors] */
    uint32_t *expected; /* [table.n_tensors] CRC-32, or NULL without manifest */
    char *model, *provenance;

    const mm_tensor_table
        *bound; /* &table, or what mm_weights_bind was given */
    int *found; /* bound tensor -> tensor; NULL: the same */
    mm_checksum sum;
    void *buffer; /* for bytes before conversion */
};

/**
 * Append a tensor of the file.
 *
 * Memory   Name, shape and source are copied.
 * Errors   MM_E_FORMAT naming file and tensor, also where its bytes reach
 *          beyond the file's end; MM_E_MEMORY.
 */
mm_status mm_weights_add(mm_weights *weights, const char *name, int n_dims,
                         const int64_t *shape, const mm_source *source);

/** The readers: weights->path, fd and n_bytes are set, the rest is empty. They
 * may leave parts filled when they fail; the caller cleans up. */
mm_status mm_weights_open_hdf5(mm_weights *weights);
mm_status mm_weights_open_safetensors(mm_weights *weights);

#endif
