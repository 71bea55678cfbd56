#ifndef MAGMAX_IO_WEIGHTS_WEIGHTS_READER_H
#define MAGMAX_IO_WEIGHTS_WEIGHTS_READER_H

#include "io/weights/checksum.h"
#include "io/weights/number_types.h"
#include "io/weights/weights.h"
#include "io/weights/weights_index.h"

/**
 * Between open_weights.c and the readers of formats (read_*.c): a reader fills
 * in the table, where each tensor lies, and the texts; read_elements.c reads
 * the elements.
 */

enum {
    /* Elements are read, summed up and checked in pieces that stay in the
     * cache. */
    MM_WEIGHTS_PIECE_BYTES = 1 << 18
};

typedef struct mm_weights_file {
    char *path;
    int fd;
    int64_t n_bytes;
} mm_weights_file;

/** Where a tensor lies. */
typedef struct mm_source {
    int file;          /* set by mm_weights_add */
    int64_t off_bytes; /* of its first element */
    mm_elem_type type;
    char type_name[16]; /* as the file calls it, for messages */

    /* Elements that do not follow each other in the order of their indices. */
    bool strided;
    int64_t strides[MM_MAX_DIMS]; /* in elements */
    int64_t span_elems;           /* from the first to the last in the file */

    bool has_crc;
    uint32_t crc; /* CRC-32 of its bytes, where not strided */
} mm_source;

/** Bytes that have a checksum, but are not those of one tensor. */
typedef struct mm_stretch {
    int file;
    int64_t off_bytes, n_bytes;
    uint32_t crc;
    int tensor; /* one that lies there */
} mm_stretch;

struct mm_weights {
    char *path;
    mm_weights_kind kind;
    mm_weights_file *files; /* one, or an index's */
    int n_files;
    mm_weights_file *file; /* the one that a reader is to open */

    mm_tensor_table table;
    mm_source *sources;    /* [table.n_tensors] */
    bool has_checksums;    /* some source has, or there is a stretch */
    mm_stretch *stretches; /* [n_stretches] */
    int n_stretches;
    char *model, *provenance;

    const mm_tensor_table
        *bound; /* &table, or what mm_weights_bind was given */
    int *found; /* bound tensor -> tensor; NULL: the same */
    mm_checksum sum;
    void *buffer; /* [MM_WEIGHTS_PIECE_BYTES], or NULL while not needed */
    char *span;   /* the bytes around a strided tensor, `gathered`; -1: none */
    int gathered;

    /* While an index's files are opened: the index, and which one it is. */
    const mm_weights_index *index;
    int index_file;
};

/**
 * Append a tensor of weights->file.
 *
 * Memory   Name, shape and source are copied.
 * Errors   MM_E_FORMAT naming file and tensor, also where its bytes reach
 *          beyond the file's end; MM_E_MEMORY.
 */
mm_status mm_weights_add(mm_weights *weights, const char *name, int n_dims,
                         const int64_t *shape, const mm_source *source);

/** The readers: weights->file is open, and the table may hold other files'
 * tensors. They may leave parts filled when they fail; the caller cleans up. */
mm_status mm_weights_read_hdf5(mm_weights *weights);
mm_status mm_weights_read_safetensors(mm_weights *weights);
mm_status mm_weights_read_torch(mm_weights *weights);

#endif
