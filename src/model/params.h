#ifndef MAGMAX_SRC_MODEL_PARAMS_H
#define MAGMAX_SRC_MODEL_PARAMS_H

#include "src/base/tensor_table.h"
#include "src/model/config.h"

/** One residual block's tensors inside a flat buffer: weights, or gradients. */
typedef struct mm_block_params {
    float *ln_1_weight, *ln_1_bias;
    float *in_proj_weight, *in_proj_bias;
    float *out_proj_weight, *out_proj_bias;
    float *ln_2_weight, *ln_2_bias;
    float *c_fc_weight, *c_fc_bias;
    float *c_proj_weight, *c_proj_bias;
} mm_block_params;

/** The image tower's tensors inside a flat buffer. */
typedef struct mm_vit_params {
    float *class_embedding, *positional_embedding;
    float *proj;
    float *conv1_weight;
    float *ln_pre_weight, *ln_pre_bias;
    float *ln_post_weight, *ln_post_bias;
} mm_vit_params;

/** The text tower's, and the scale of the logits. */
typedef struct mm_text_params {
    float *positional_embedding;
    float *text_projection;
    float *logit_scale; /* one number: the scale's logarithm */
    float *token_embedding;
    float *ln_final_weight, *ln_final_bias;
} mm_text_params;

typedef enum mm_tower { MM_IMAGE_TOWER, MM_TEXT_TOWER } mm_tower;

/**
 * The image tower's tensors, names and order as in open_clip's state dict.
 *
 * Memory   Fills *table, freed by mm_tensor_table_clear. Start from {0}.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_params_table(const mm_model_config *config,
                          mm_tensor_table *table);

/** Likewise the text tower's with logit_scale, which has shape []. */
mm_status mm_params_text_table(const mm_model_config *config,
                               mm_tensor_table *table);

/** Likewise of a whole CLIP: both towers, in the order in which open_clip
 * mixes them. */
mm_status mm_params_clip_table(const mm_model_config *config,
                               mm_tensor_table *table);

/** Point into a flat buffer of mm_params_table's (mm_params_text_table's)
 * layout; no memory is given. */
mm_vit_params mm_params_vit(const mm_model_config *config, float *flat);
mm_text_params mm_params_text(const mm_model_config *config, float *flat);
mm_block_params mm_params_block(const mm_model_config *config, mm_tower of,
                                int64_t layer, float *flat);

/** Element ranges of the image tower's flat buffer that a backward pass
 * finishes together: block `layer` with what follows the last block, or
 * everything before block 0 (layer -1). */
void mm_params_range(const mm_model_config *config, int64_t layer, int64_t *lo,
                     int64_t *hi);

/**
 * Random weights with open_clip's standard deviations (Radford et al. 2019 for
 * the blocks): a function of (seed, tensor, element) alone.
 *
 * Memory   theta: host, [table->n_elems]; table: any of the above.
 */
void mm_params_randomize(const mm_model_config *config,
                         const mm_tensor_table *table, uint64_t seed,
                         float *theta);

#endif
