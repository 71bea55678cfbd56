#ifndef MAGMAX_SRC_MODEL_READ_WEIGHTS_H
#define MAGMAX_SRC_MODEL_READ_WEIGHTS_H

#include "src/model/model.h"

/**
 * Read the tensors of model->table from a file into model->theta. Positional
 * embeddings for another grid of patches are resized, which is logged.
 *
 * Memory   model->theta: host, [model->table.n_elems].
 * Ranks    Local.
 * Errors   As mm_weights_load.
 */
mm_status mm_model_read_weights(mm_log *log, const char *path, mm_model *model);

#endif
