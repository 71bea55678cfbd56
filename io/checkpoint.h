#ifndef MAGMAX_IO_CHECKPOINT_H
#define MAGMAX_IO_CHECKPOINT_H

#include "comm/comm.h"
#include "src/base/tensor_table.h"

/**
 * Writes one file of named fp32 tensors, every rank its own range of the flat
 * buffer, streaming. The name appears only when the file is whole: written as
 * PATH.tmp, flushed, renamed, and the folder flushed.
 *
 * Contents: group /model with one contiguous little-endian fp32 dataset a
 * tensor, of its natural shape; root attributes `format` ("magmax-checkpoint"),
 * `format_version` (1), `model` (the configuration's JSON, where known);
 * dataset /provenance (JSON text); dataset /manifest (text: one line
 * "<crc32, 8 hex digits>  <tensor>" a tensor in order, the CRC-32 of zlib over
 * its bytes in the file; likewise "/provenance", and "/model_config", the
 * dataset that holds a configuration of 60 KiB or more in the attribute's
 * stead; then the CRC-32 of all these lines and the word "manifest"). HDF5's
 * own metadata carries HDF5's checksums.
 */
typedef struct mm_checkpoint mm_checkpoint;

/**
 * Memory   Gives *checkpoint, ended by mm_checkpoint_commit. Keeps `table`.
 * Ranks    Collective, same arguments.
 * Errors   MM_E_IO on every rank when any rank cannot write there; MM_E_ARG for
 *          a tensor whose name is empty, "." or has a slash or a line break.
 */
mm_status mm_checkpoint_create(mm_comm *comm, const char *path,
                               const mm_tensor_table *table,
                               mm_checkpoint **checkpoint);

/**
 * Write elements [lo, hi). Each rank writes one range in ascending pieces; in
 * rank order the ranges cover the table once.
 *
 * Memory   values: host, [hi - lo], borrowed for the call.
 * Ranks    Local.
 * Errors   MM_E_IO (a full disk, ...); MM_E_VALUE naming the tensor for NaN or
 *          infinity: nothing broken is ever stored.
 */
mm_status mm_checkpoint_write(mm_checkpoint *checkpoint, int64_t lo, int64_t hi,
                              const float *values);

/**
 * Finish the file and give it its name, replacing what had it.
 *
 * Memory   Frees *checkpoint, also on failure (the temporary file is removed).
 *          model and provenance: JSON texts, either may be NULL; read on rank
 * 0. Ranks    Collective; `status` is how this rank's writes went: if any rank
 *          brings a failure, the file is abandoned and every rank returns it.
 */
mm_status mm_checkpoint_commit(mm_checkpoint **checkpoint, mm_status status,
                               const char *model, const char *provenance);

/**
 * Write a whole buffer that every rank holds: create, each rank its partition,
 * commit.
 *
 * Memory   values: host, [table->n_elems], the same on every rank.
 * Ranks    Collective, same arguments.
 */
mm_status mm_checkpoint_save(mm_comm *comm, const char *path,
                             const mm_tensor_table *table, const float *values,
                             const char *model, const char *provenance);

#endif
