#ifndef MAGMAX_IO_DATASET_DATASET_READER_H
#define MAGMAX_IO_DATASET_DATASET_READER_H

#include "io/dataset/dataset.h"

/**
 * Between open_dataset.c and the readers of formats (read_*.c): a reader fills
 * in the halves, the names where it has them, and the storage; open_dataset.c
 * counts classes and domains and checks them against the names.
 */

/** Images on a side and classes: more is a damaged file, not a data set. */
enum { MM_MAX_SIDE = 1 << 16, MM_MAX_CLASSES = 1000000 };

/** Readers of one file or folder; dataset->name is set, the rest is empty. They
 * may leave parts filled when they fail; the caller cleans up. */
mm_status mm_dataset_read_npz(const char *path, mm_dataset *dataset);
mm_status mm_dataset_read_packed(const char *path, mm_dataset *dataset);
mm_status mm_dataset_read_idx(const char *folder, mm_dataset *dataset);

/** The reader of class folders. Ranks: collective, as mm_dataset_open_folder.
 */
mm_status mm_dataset_read_class_folders(mm_comm *comm, const char *folder,
                                        mm_dataset *dataset);

/**
 * Take pixels that were read into memory, for both halves.
 *
 * Memory   Takes train and test (free), also on failure; either may be NULL.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_dataset_keep_pixels(mm_dataset *dataset, uint8_t *train,
                                 uint8_t *test);

/**
 * Set the shape of a half from [N, H, W] or [N, H, W, 1 or 3].
 *
 * Errors   MM_E_FORMAT naming file and array.
 */
mm_status mm_half_set_shape(mm_half *half, const char *path, const char *array,
                            int n_dims, const int64_t *shape);

/** Bytes of all pixels of a half whose shape is set; cannot overflow. */
int64_t mm_half_n_bytes(const mm_half *half);

/**
 * Check labels or domains and narrow them to int32.
 *
 * Memory   Gives *narrow (free), never NULL.
 * Errors   MM_E_VALUE naming file, array and index for a negative number or
 *          one beyond MM_MAX_CLASSES; MM_E_MEMORY.
 */
mm_status mm_labels_narrow(const char *path, const char *array,
                           const int64_t *wide, int64_t n, int32_t **narrow);

#endif
