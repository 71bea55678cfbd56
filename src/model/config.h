#ifndef MAGMAX_SRC_MODEL_CONFIG_H
#define MAGMAX_SRC_MODEL_CONFIG_H

#include "kernels/ops.h"
#include "src/base/log.h"

#include <stdbool.h>
#include <stdint.h>

/** open_clip's model configuration, image tower (vision_cfg). */
typedef struct mm_model_config {
    int64_t embed_dim;
    mm_activation activation;
    int64_t image_size, patch_size;
    int64_t width, n_layers, head_width;
    double mlp_ratio;
    int64_t n_heads;   /* width / head_width                 */
    int64_t n_tokens;  /* (image_size / patch_size)^2 + 1     */
    int64_t mlp_width; /* floor(width * mlp_ratio)            */
    char *json;        /* the configuration's text, owned     */
} mm_model_config;

/**
 * Find a configuration: a built-in name (ViT-B-32, ViT-B-16, ViT-L-14,
 * ViT-L-14-336 and their -quickgelu twins) or the path of an open_clip model
 * JSON file.
 *
 * Memory   Fills *config, freed by mm_model_config_clear. Start from {0}.
 * Ranks    Local.
 * Errors   MM_E_ARG for an unknown name (known ones and the nearest listed) or
 *          an unknown key (the nearest named); MM_E_FORMAT for what is not JSON
 *          or has an impossible size; MM_E_IO.
 */
mm_status mm_model_config_find(const char *name, mm_model_config *config);

/** Parse JSON text; `where` is named in messages. As mm_model_config_find. */
mm_status mm_model_config_parse(const char *text, const char *where,
                                mm_model_config *config);

/**
 * The configuration of a run: what the user typed (`name`, may be NULL) and
 * what the weights' file says of itself (`recorded` JSON, may be NULL). Weights
 * know their activation best: where only that differs the file is followed,
 * with a warning.
 *
 * Errors   MM_E_ARG when neither is there, or when they differ in a size (which
 *          is named).
 */
mm_status mm_model_config_choose(const char *name, const char *recorded,
                                 const char *path, mm_log *log,
                                 mm_model_config *config);

void mm_model_config_clear(mm_model_config *config);

#endif
