#ifndef MAGMAX_SRC_MODEL_CONFIG_H
#define MAGMAX_SRC_MODEL_CONFIG_H

#include "kernels/ops.h"
#include "src/base/log.h"

#include <stdbool.h>
#include <stdint.h>

/** One tower's transformer: a stack of equal residual blocks. */
typedef struct mm_tower_config {
    int64_t width, n_layers, n_heads, mlp_width;
    int64_t n_tokens; /* longest sequence, one position each */
    mm_activation activation;
    bool causal; /* a token sees none behind it */
} mm_tower_config;

/** open_clip's model configuration. */
typedef struct mm_model_config {
    int64_t embed_dim;
    int64_t image_size, patch_size;
    mm_tower_config image; /* n_tokens: (image_size / patch_size)^2 + 1 */
    bool has_text;         /* whether the text tower is known           */
    int64_t vocab_size;
    mm_tower_config text; /* n_tokens: context_length           */
    char *json;           /* the configuration's text, owned    */
} mm_model_config;

/**
 * Find a configuration: a built-in name (ViT-B-32, ViT-B-16, ViT-L-14,
 * ViT-L-14-336, each also with -quickgelu) or the path of an open_clip model
 * JSON file.
 *
 * Memory   Fills *config, freed by mm_model_config_clear. Start from {0}.
 * Ranks    Local.
 * Errors   MM_E_ARG for an unknown name (known ones and the nearest listed), an
 *          unknown key (the nearest named), or an option of open_clip's that is
 *          not supported (named, with the value that is); MM_E_FORMAT for what
 *          is not JSON or has an impossible size; MM_E_IO.
 */
mm_status mm_model_config_find(const char *name, mm_model_config *config);

/** Parse JSON text; `where` is named in messages. As mm_model_config_find. */
mm_status mm_model_config_parse(const char *text, const char *where,
                                mm_model_config *config);

/**
 * The configuration of a run: the value of --model (`name`, may be NULL) and
 * what the weights file records (JSON, may be NULL). Where only the activation
 * differs the file is followed, with a warning. The size of images is that of
 * `name`: positional embeddings
 * can be resized. Text towers are compared where both have one; one is enough.
 *
 * Errors   MM_E_ARG when neither is there, or when they differ in another size
 *          (which is named).
 */
mm_status mm_model_config_choose(const char *name, const char *recorded,
                                 const char *path, mm_log *log,
                                 mm_model_config *config);

void mm_model_config_clear(mm_model_config *config);

#endif
