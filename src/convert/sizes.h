#ifndef MAGMAX_SRC_CONVERT_SIZES_H
#define MAGMAX_SRC_CONVERT_SIZES_H

#include "src/convert/source.h"
#include "src/model/config.h"

/** The files that a conversion reads, the first one preferred. */
typedef struct mm_convert_inputs {
    mm_convert_source sources[2];
    int n_sources;
} mm_convert_inputs;

/** As mm_convert_source_find, in the first file that has the tensor; of a text
 * tower only in a file that has all of it. */
bool mm_convert_find(const mm_convert_inputs *inputs, const char *ours,
                     int *source, mm_stored *stored,
                     char missing[MM_NAME_BYTES]);

/** A model as its tensors and as its configuration describe it. */
typedef struct mm_convert_model {
    mm_model_config stored; /* the sizes that the tensors have; no json   */
    mm_model_config config; /* what is recorded: json NULL where unknown  */
} mm_convert_model;

/**
 * What model the inputs hold: sizes from the shapes of the tensors; heads and
 * activation from what the files say, a configuration file beside them, or
 * `name` (the value of --model, may be NULL). All of these must
 * agree; the size of images is that of --model. OpenAI's files have QuickGELU
 * and heads of 64. Where nothing says, config.json stays NULL with a warning:
 * nothing is guessed.
 *
 * Memory   Fills *model, emptied by mm_convert_model_clear, also after a
 *          failure. Start from {0}.
 * Ranks    Local.
 * Errors   MM_E_FORMAT naming a tensor without which sizes stay unknown, or one
 *          with an impossible shape; MM_E_ARG naming the size that differs.
 */
mm_status mm_convert_model_find(const mm_convert_inputs *inputs,
                                const char *name, mm_log *log,
                                mm_convert_model *model);
void mm_convert_model_clear(mm_convert_model *model);

#endif
