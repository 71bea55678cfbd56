#ifndef MAGMAX_IO_WEIGHTS_H
#define MAGMAX_IO_WEIGHTS_H

#include "comm/comm.h"
#include "src/base/tensor_table.h"

#include <stdbool.h>

/**
 * A file of named tensors, open for reading: a checkpoint or any HDF5 file of
 * ours (group /model, or datasets in the root where there is no such group), or
 * safetensors, told apart by content. Elements are read directly at their
 * offset in the file and converted to fp32, so that every rank reads its own
 * slice and nothing else.
 *
 * HDF5 datasets must be contiguous: another layout is an error that says how to
 * rewrite the file. Types: F64, F32, F16, BF16, little-endian; tensors of other
 * numbers are listed in the table, and an error when they are read.
 */
typedef struct mm_weights mm_weights;

/**
 * Open a file and read its table, not its tensors.
 *
 * Memory   Gives *weights, freed by mm_weights_close.
 * Ranks    Local.
 * Errors   MM_E_IO, MM_E_FORMAT, naming the file; a file that is shorter than
 *          its table says is MM_E_FORMAT ("truncated").
 */
mm_status mm_weights_open(const char *path, mm_weights **weights);
void mm_weights_close(mm_weights **weights);

const char *mm_weights_path(const mm_weights *weights);

/** Every tensor of the file, in the file's order (for our checkpoints: the
 * order in which they were written). */
const mm_tensor_table *mm_weights_table(const mm_weights *weights);

/** The model configuration's JSON text, or NULL where the file has none. */
const char *mm_weights_model(const mm_weights *weights);

/** JSON text on how the weights came about, or NULL. */
const char *mm_weights_provenance(const mm_weights *weights);

/**
 * Choose what mm_weights_read's flat coordinates mean: `wanted`'s tensors,
 * found by name. Without this call they mean mm_weights_table.
 *
 * Memory   Keeps `wanted`.
 * Errors   MM_E_FORMAT naming the tensor: one that is missing, or has another
 *          shape (both are given), or a visual.* tensor in the file that is not
 *          wanted, if any wanted one is visual.*.
 */
mm_status mm_weights_bind(mm_weights *weights, const mm_tensor_table *wanted);

/**
 * Read elements [lo, hi) of the flat buffer as fp32.
 *
 * Memory   out: host, [hi - lo].
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_FORMAT when the file ends early; MM_E_VALUE naming the
 *          tensor and element that is NaN or infinite.
 */
mm_status mm_weights_read(mm_weights *weights, int64_t lo, int64_t hi,
                          float *out);

/**
 * Compare the checksums of what was read with the file's manifest. Each rank
 * must have read one range in ascending pieces, and the ranks' ranges, in rank
 * order, must cover the bound table once (`comm`), or this rank alone must have
 * read all of it (`comm` NULL). Files without checksums pass. The next read
 * starts another pass.
 *
 * Ranks    Collective when `comm` is given; the same status everywhere.
 * Errors   MM_E_FORMAT naming the first tensor whose bytes have changed;
 *          MM_E_ARG when the reads did not cover the table so.
 */
mm_status mm_weights_verify(mm_weights *weights, mm_comm *comm);

/**
 * Open, bind, read everything, verify, close, in one call.
 *
 * Memory   out: host, [wanted->n_elems].
 * Ranks    Local (agree afterwards).
 */
mm_status mm_weights_load(const char *path, const mm_tensor_table *wanted,
                          float *out);

#endif
