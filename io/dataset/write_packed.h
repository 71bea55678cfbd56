#ifndef MAGMAX_IO_DATASET_WRITE_PACKED_H
#define MAGMAX_IO_DATASET_WRITE_PACKED_H

#include "io/dataset/dataset.h"

/**
 * Writes a packed data set: HDF5, groups /train and /test, each with
 *
 *   images    [N, H, W] or [N, H, W, 3] uint8 contiguous, or else
 *   bytes     [total] uint8 contiguous, encoded images one behind the other,
 *   offsets   [N + 1] int64, where in `bytes` each image begins and ends;
 *   labels    [N] int32
 *   domains   [N] int32, optional
 *   paths     [N] variable-length UTF-8, optional: what files they were
 *
 * root datasets `class_names`, `domain_names` (variable-length UTF-8) where
 * known; root attributes `format` ("magmax-dataset"), `format_version` (1),
 * `provenance` (text, optional), and `one_split` (1) where there is one group,
 * /train, that serves for training and test alike.
 *
 * The file appears under its name when all of it is written and on the disk.
 */
typedef struct mm_packed_writer mm_packed_writer;

/**
 * Create the file with everything but the images, which have their place.
 *
 * `dataset` describes the content: its halves' pixels and bytes are not
 * read, and its storage may not be files.
 *
 * Memory   Gives *writer, freed by mm_packed_writer_commit; keeps `dataset`.
 * Ranks    Local: one rank writes.
 * Errors   MM_E_IO, also where the disk has no room; MM_E_MEMORY.
 */
mm_status mm_packed_writer_begin(const char *path, const mm_dataset *dataset,
                                 const char *provenance,
                                 mm_packed_writer **writer);

/** Write part of a half's images or bytes: `half` is the data set's train or
 * test. Ranks: local; any thread, also several at once. Errors: MM_E_IO. */
mm_status mm_packed_writer_write(mm_packed_writer *writer, const mm_half *half,
                                 int64_t off_bytes, const void *data,
                                 int64_t n_bytes);

/** Finish the file, or, unless `status` is MM_OK, remove what there is of it.
 * Gives `status`, or how finishing went. */
mm_status mm_packed_writer_commit(mm_packed_writer **writer, mm_status status);

#endif
