#ifndef MAGMAX_SRC_MODEL_MODEL_H
#define MAGMAX_SRC_MODEL_MODEL_H

#include "comm/comm.h"
#include "src/base/log.h"
#include "src/base/tensor_table.h"
#include "src/model/config.h"

/** A model on the host: what it is, and its weights. */
typedef struct mm_model {
    mm_model_config config;
    mm_tensor_table table;
    float *theta; /* [table.n_elems] */
} mm_model;

/**
 * Read a model's weights, or make random ones.
 *
 * Memory   Fills *model, freed by mm_model_clear. Start from {0}.
 *          name: the value of --model, or NULL; path: a weights file, or
 *          NULL for random weights from `seed`.
 * Ranks    Collective, same name, seed: every rank reads its own file.
 * Errors   As mm_model_config_choose and mm_weights_load, on every rank.
 */
mm_status mm_model_init(mm_comm *comm, mm_log *log, const char *name,
                        const char *path, uint64_t seed, mm_model *model);

/**
 * As mm_model_init, of the text tower: table and theta are
 * mm_params_text_table's; random weights are always the same ones.
 *
 * Ranks    Collective, same name: every rank reads its own file.
 * Errors   Also MM_E_FORMAT where the model has no text tower (the first tensor
 *          that is missing is named), MM_E_ARG where nothing tells its sizes.
 */
mm_status mm_model_init_text(mm_comm *comm, mm_log *log, const char *name,
                             const char *path, mm_model *model);
void mm_model_clear(mm_model *model);

#endif
