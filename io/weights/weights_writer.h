#ifndef MAGMAX_IO_WEIGHTS_WRITE_WEIGHTS_H
#define MAGMAX_IO_WEIGHTS_WRITE_WEIGHTS_H

#include "comm/comm.h"
#include "io/weights/number_types.h"
#include "src/base/tensor_table.h"

/**
 * Writes one file of named tensors, every rank its own range of the flat fp32
 * buffer, streaming. The name appears only when the file is whole: written as
 * PATH.tmp, flushed, renamed, and the folder flushed. Two formats, told apart
 * by the function that creates the file; all else is common to both.
 *
 * A checkpoint (mm_checkpoint_begin): group /model with one contiguous
 * little-endian fp32 dataset per tensor, of its natural shape; root attributes
 * `format` ("magmax-checkpoint"), `format_version` (1), `model` (the
 * configuration's JSON, where known); dataset /provenance (JSON text); dataset
 * /manifest (text: one line
 * "<crc32, 8 hex digits>  <tensor>" per tensor in order, the CRC-32 of zlib
 * over its bytes in the file; likewise "/provenance", and "/model_config", the
 * dataset that holds a configuration of 60 KiB or more instead of the
 * attribute; then the CRC-32 of all these lines and the word "manifest").
 * HDF5's own metadata carries HDF5's checksums.
 *
 * safetensors (mm_safetensors_begin): the tensors in the table's order, back
 * to back, all of one type; __metadata__ holds "format": "pt", as the format's
 * users expect, and the texts "model" and "provenance". The format has no
 * checksums.
 *
 * Names that are not UTF-8 are stored in the manifest and in safetensors as
 * src/base/utf8.h says; in HDF5's links they are bytes, and stay as they are.
 */
typedef struct mm_weights_writer mm_weights_writer;

/**
 * Memory   Gives *writer, freed by mm_weights_writer_commit. Keeps `table`.
 * Ranks    Collective, same path, table.
 * Errors   MM_E_IO on every rank when any rank cannot write there; MM_E_ARG for
 *          a tensor whose name is empty, "." or has a slash or a line break.
 */
mm_status mm_checkpoint_begin(mm_comm *comm, const char *path,
                              const mm_tensor_table *table,
                              mm_weights_writer **writer);

/**
 * As mm_checkpoint_begin, for a safetensors file of `type`: F32, F16 or
 * BF16. Its header comes first in the file, so the texts must be known here.
 *
 * Memory   Gives *writer, freed by mm_weights_writer_commit. Keeps `table`.
 *          model and provenance: JSON texts, either may be NULL.
 * Ranks    Collective, same path, table, type; the texts are rank 0's.
 * Errors   As mm_checkpoint_begin; MM_E_ARG for another type and a tensor named
 *          __metadata__.
 */
mm_status mm_safetensors_begin(mm_comm *comm, const char *path,
                               const mm_tensor_table *table, mm_elem_type type,
                               const char *model, const char *provenance,
                               mm_weights_writer **writer);

/**
 * Write elements [lo, hi), rounded to the nearest (ties to even) where the file
 * holds F16 or BF16. All ranks' pieces together cover the table once, in any
 * order.
 *
 * Memory   values: host, [hi - lo], borrowed for the call.
 * Ranks    Local.
 * Errors   MM_E_IO (a full disk, ...); MM_E_VALUE naming the tensor for NaN,
 *          infinity, or a number too large for the file's type: nothing broken
 *          is ever stored.
 */
mm_status mm_weights_writer_write(mm_weights_writer *writer, int64_t lo,
                                  int64_t hi, const float *values);

/**
 * Finish the file and give it its name, replacing what had it.
 *
 * Memory   Frees *writer, also on failure (the temporary file is removed).
 *          model and provenance: JSON texts for a checkpoint, either may be
 *          NULL; read on rank 0. A safetensors file has its own already.
 * Ranks    Collective; `status` is how this rank's writes went: if any rank
 *          brings a failure, the file is abandoned and every rank returns it.
 * Errors   `status` of any rank; MM_E_IO; MM_E_ARG when the pieces do not cover
 *          the table once.
 */
mm_status mm_weights_writer_commit(mm_weights_writer **writer, mm_status status,
                                   const char *model, const char *provenance);

/**
 * Write a whole buffer that every rank holds: create, each rank its partition,
 * commit.
 *
 * Memory   values: host, [table->n_elems], the same on every rank.
 * Ranks    Collective, same path, table, values; the texts are rank 0's.
 */
mm_status mm_checkpoint_save(mm_comm *comm, const char *path,
                             const mm_tensor_table *table, const float *values,
                             const char *model, const char *provenance);

#endif
