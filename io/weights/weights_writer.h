#ifndef MAGMAX_IO_WEIGHTS_WEIGHTS_WRITER_H
#define MAGMAX_IO_WEIGHTS_WEIGHTS_WRITER_H

#include "io/weights/checksum.h"
#include "io/weights/write_weights.h"

/**
 * Between checkpoint.c, which has the ranks write into one file that appears
 * whole, and the formats, which say where in the file each tensor lies.
 */

/** What a format adds; each returns the status of this rank alone. */
typedef struct mm_checkpoint_format {
    /** Every rank: whether the format can hold cp->table. */
    mm_status (*check)(const mm_checkpoint *cp);

    /** Root: make cp->tmp_path with all but the elements; fill cp->off_bytes.
     * Begins with mm_checkpoint_probe. */
    mm_status (*create)(mm_checkpoint *cp);

    /** Root: add what is known only now. NULL: nothing is. */
    mm_status (*finish)(const mm_checkpoint *cp, const uint32_t *crc,
                        const char *model, const char *provenance);

    bool has_checksums;
} mm_checkpoint_format;

/** What is to be written beside the elements. */
typedef struct mm_checkpoint_content {
    const mm_checkpoint_format *format;
    mm_elem_type type;
    const char *model, *provenance; /* where they are known at the start */
} mm_checkpoint_content;

struct mm_checkpoint {
    mm_comm *comm;
    const mm_tensor_table *table;
    mm_checkpoint_content content; /* its texts only until it is created */
    char *path, *tmp_path;
    int fd;
    int64_t *off_bytes; /* [n_tensors] in the file */
    mm_checksum sum;
    void *buffer; /* converted elements; NULL for F32 */
};

/** mm_checkpoint_create of any format. Ranks: collective, same path, table,
 * type. */
mm_status mm_checkpoint_begin(mm_comm *comm, const char *path,
                              const mm_tensor_table *table,
                              const mm_checkpoint_content *content,
                              mm_checkpoint **checkpoint);

/** Make an empty cp->tmp_path, and see that n_bytes have room on the disk.
 * Ranks: local, on rank 0. */
mm_status mm_checkpoint_probe(const mm_checkpoint *cp, int64_t n_bytes);

#endif
