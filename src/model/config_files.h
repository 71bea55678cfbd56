#ifndef MAGMAX_SRC_MODEL_CONFIG_FILES_H
#define MAGMAX_SRC_MODEL_CONFIG_FILES_H

#include "src/model/config.h"

/**
 * The configuration files that lie beside other programs' weights, read and
 * written as open_clip's model JSON, which mm_model_config_parse understands.
 *
 * Memory   Readers give *model, a text to free(); `where` is named in messages.
 * Ranks    Local.
 */

/**
 * What an open_clip_config.json says: {"model_cfg", "preprocess_cfg"}.
 *
 * Memory   *other_pixels: whether images are to be normalised with another
 *          mean or deviation than CLIP's, which this project always uses.
 * Errors   MM_E_FORMAT for what is not JSON or has no model_cfg, MM_E_MEMORY.
 *          The model's own keys are left to mm_model_config_parse.
 */
mm_status mm_config_from_open_clip(const char *text, const char *where,
                                   char **model, bool *other_pixels);

/**
 * The model in transformers' config.json of a CLIPModel or a CLIPVisionModel,
 * with transformers' defaults for missing keys.
 *
 * Errors   MM_E_FORMAT for what is not JSON or has an impossible size; MM_E_ARG
 *          naming an option that CLIP's Vision Transformers do not have
 *          (another model_type, hidden_act, layer_norm_eps); MM_E_MEMORY.
 */
mm_status mm_config_from_huggingface(const char *text, const char *where,
                                     char **model);

/**
 * A configuration's text from its sizes (all fields but `json`).
 *
 * Memory   Gives *model, a text to free().
 * Errors   MM_E_MEMORY.
 */
mm_status mm_model_config_write(const mm_model_config *config, char **model);

#endif
