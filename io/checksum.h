#ifndef MAGMAX_IO_CHECKSUM_H
#define MAGMAX_IO_CHECKSUM_H

#include "comm/comm.h"
#include "src/base/tensor_table.h"

/** CRC-32 (zlib's) of bytes. */
uint32_t mm_crc32(const void *data, int64_t n_bytes);

/** What one rank knows of one tensor's bytes. */
typedef struct mm_partial_crc {
    uint32_t crc;
    uint32_t unused;
    int64_t n_bytes;
} mm_partial_crc;

/**
 * The checksums of the tensors of a table while ranks read or write them: each
 * rank goes over one range of elements in ascending pieces, and the parts of a
 * tensor that ranks share are combined afterwards. Start from {0}.
 */
typedef struct mm_checksum {
    const mm_tensor_table *table;
    mm_partial_crc *partial; /* [table->n_tensors] */
    int64_t lo, hi;          /* elements seen so far */
    bool scattered;          /* pieces did not follow each other */
} mm_checksum;

/**
 * Memory   Keeps `table`; freed by mm_checksum_end.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_checksum_begin(mm_checksum *sum, const mm_tensor_table *table);
void mm_checksum_end(mm_checksum *sum);

/** Forget what was seen. */
void mm_checksum_restart(mm_checksum *sum);

/** Take note that elements [lo, hi) come next. */
void mm_checksum_advance(mm_checksum *sum, int64_t lo, int64_t hi);

/** Add the next bytes of a tensor. */
void mm_checksum_add(mm_checksum *sum, int tensor, const void *data,
                     int64_t n_bytes);

/**
 * Put the ranks' parts together: crc[n_tensors], the same on every rank.
 *
 * Ranks    Collective; `comm` may be NULL for this rank alone.
 * Timing   Blocking.
 * Errors   MM_E_ARG when the ranges do not cover the table once in rank order;
 *          MM_E_MEMORY; MM_E_COMM.
 */
mm_status mm_checksum_combine(const mm_checksum *sum, mm_comm *comm,
                              uint32_t *crc);

#endif
