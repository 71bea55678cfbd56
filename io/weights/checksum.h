#ifndef MAGMAX_IO_WEIGHTS_CHECKSUM_H
#define MAGMAX_IO_WEIGHTS_CHECKSUM_H

#include "comm/comm.h"
#include "src/base/tensor_table.h"

/** CRC-32 (zlib's) of bytes, and of bytes that follow those of `crc`. */
uint32_t mm_crc32(const void *data, int64_t n_bytes);
uint32_t mm_crc32_continue(uint32_t crc, const void *data, int64_t n_bytes);

/** A run of elements of one tensor whose bytes one rank has processed. */
typedef struct mm_checksum_part {
    int64_t first, end; /* elements of the tensor */
    int64_t n_bytes;
    int32_t tensor;
    uint32_t crc;
} mm_checksum_part;

/**
 * The checksums of the tensors of a table while ranks read or write them, in
 * pieces of any size and order: what continues the tensor's piece before it is
 * added to it, and the rest is put together afterwards. Start from {0}.
 */
typedef struct mm_checksum {
    const mm_tensor_table *table;
    mm_checksum_part *parts;
    int n_parts, capacity;
    int *
        latest; /* [table->n_tensors] its part that is being continued, or -1 */
} mm_checksum;

/**
 * Memory   Keeps `table`; freed by mm_checksum_end.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_checksum_begin(mm_checksum *sum, const mm_tensor_table *table);
void mm_checksum_end(mm_checksum *sum);

/** Forget all parts. */
void mm_checksum_restart(mm_checksum *sum);

/**
 * Take in elements [first, first + n_elems) of a tensor.
 *
 * Memory   data: their n_bytes bytes in the file, or NULL where only the
 *          presence of all elements is checked, without checksums.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_checksum_add(mm_checksum *sum, int tensor, int64_t first,
                          int64_t n_elems, const void *data, int64_t n_bytes);

/**
 * Put the ranks' parts together: crc[n_tensors], the same on every rank.
 *
 * Ranks    Collective, same table; with `comm` NULL for this rank alone, and
 *          then the crc of a tensor of which nothing was seen stays as it is.
 * Timing   Blocking.
 * Errors   MM_E_ARG naming a tensor whose elements were not all there, or some
 *          of them twice; MM_E_MEMORY; MM_E_COMM.
 */
mm_status mm_checksum_combine(const mm_checksum *sum, mm_comm *comm,
                              uint32_t *crc);

#endif
