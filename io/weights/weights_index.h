#ifndef MAGMAX_IO_WEIGHTS_WEIGHTS_INDEX_H
#define MAGMAX_IO_WEIGHTS_WEIGHTS_INDEX_H

#include "src/base/tensor_table.h"

#include <stdbool.h>

/** An index, "NAME.index.json": which file holds which tensor of a model that
 * is stored in several files. */
typedef struct mm_weights_index mm_weights_index;

/**
 * Memory   Gives *index, freed by mm_weights_index_destroy.
 * Errors   MM_E_IO; MM_E_FORMAT naming the file and what is wrong in it;
 *          MM_E_MEMORY.
 */
mm_status mm_weights_index_read(const char *path, mm_weights_index **index);
void mm_weights_index_destroy(mm_weights_index **index);

/** The files, each once, in byte order of their names. */
int mm_weights_index_n_files(const mm_weights_index *index);

/** Path of a file; owned by the index. */
const char *mm_weights_index_path(const mm_weights_index *index, int file);

/**
 * Whether a tensor is to be taken from a file in which it was found.
 *
 * Errors   MM_E_FORMAT where the index does not list the tensor at all.
 */
mm_status mm_weights_index_wants(const mm_weights_index *index, int file,
                                 const char *tensor, bool *wanted);

/** Errors   MM_E_FORMAT naming a tensor of the index that is not in `table`. */
mm_status mm_weights_index_check_complete(const mm_weights_index *index,
                                          const mm_tensor_table *table);

#endif
