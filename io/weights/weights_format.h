#ifndef MAGMAX_IO_WEIGHTS_WEIGHTS_FORMAT_H
#define MAGMAX_IO_WEIGHTS_WEIGHTS_FORMAT_H

#include "io/weights/checksum.h"
#include "io/weights/weights_writer.h"

/**
 * Between weights_writer.c, which has the ranks write into one file that
 * appears whole, and the formats (write_*.c), which say where in the file each
 * tensor lies.
 */

/** What a format adds; each returns the status of this rank alone. */
typedef struct mm_weights_format {
    /** Every rank: whether the format can hold w->table. */
    mm_status (*check)(const mm_weights_writer *w);

    /** Root: make w->tmp_path with all but the elements; fill w->off_bytes.
     * Begins with mm_weights_writer_reserve. */
    mm_status (*create)(mm_weights_writer *w);

    /** Root: add what is known only now. NULL: nothing is. */
    mm_status (*finish)(const mm_weights_writer *w, const uint32_t *crc,
                        const char *model, const char *provenance);

    bool has_checksums;
} mm_weights_format;

/** What is to be written beside the elements. */
typedef struct mm_weights_content {
    const mm_weights_format *format;
    mm_elem_type type;
    const char *model, *provenance; /* where they are known at the start */
} mm_weights_content;

struct mm_weights_writer {
    mm_comm *comm;
    const mm_tensor_table *table;
    mm_weights_content content; /* its texts only until it is created */
    char *path, *tmp_path;
    int fd;
    int64_t *off_bytes; /* [n_tensors] in the file */
    mm_checksum sum;
    void *buffer; /* converted elements; NULL for F32 */
};

/** Begin a file of any format: as mm_checkpoint_begin. Ranks: collective,
 * same path, table, type. */
mm_status mm_weights_writer_begin(mm_comm *comm, const char *path,
                                  const mm_tensor_table *table,
                                  const mm_weights_content *content,
                                  mm_weights_writer **writer);

/** Make an empty w->tmp_path, and see that n_bytes have room on the disk.
 * Ranks: local, on rank 0. */
mm_status mm_weights_writer_reserve(const mm_weights_writer *w,
                                    int64_t n_bytes);

#endif
