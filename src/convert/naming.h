#ifndef MAGMAX_SRC_CONVERT_NAMING_H
#define MAGMAX_SRC_CONVERT_NAMING_H

#include "src/base/tensor_table.h"

/**
 * The names of CLIP's tensors in other programs. Ours are open_clip's; every
 * naming says under which name, or names, it has each of our tensors.
 */
typedef struct mm_naming mm_naming;

enum {
    MM_MAX_PARTS = 3, /* queries, keys and values of one matrix */
    MM_NAME_BYTES = 192
};

/** A tensor of a naming: all of one of ours, or an equal share of its rows. */
typedef struct mm_name_part {
    char name[MM_NAME_BYTES];
    bool transposed; /* against ours */
    int part, n_parts;
} mm_name_part;

/** The namings that --names accepts, as a list of choices. */
#define MM_NAMINGS "open_clip,huggingface,openai"

/** A naming of MM_NAMINGS. */
const mm_naming *mm_naming_find(const char *name);

/** "Hugging Face", for people. */
const char *mm_naming_title(const mm_naming *naming);

/** Whether files with these names have transformers' config.json beside
 * them, not open_clip's open_clip_config.json. */
bool mm_naming_is_huggingface(const mm_naming *naming);

/**
 * The names under which a naming keeps one of our tensors; with
 * parts[0].n_parts of them, in the order of the rows.
 *
 * Ranks    Local.
 * Errors   none: every name of ours has its names.
 */
void mm_naming_parts(const mm_naming *naming, const char *ours,
                     mm_name_part parts[MM_MAX_PARTS]);

/**
 * Recognise the naming of a file by the names in it, and what stands before
 * all of them ("module.", "model.").
 *
 * Memory   prefix: filled.
 * Ranks    Local.
 * Errors   MM_E_FORMAT naming `path`, and the other kind of model that it seems
 *          to hold.
 */
mm_status mm_naming_recognize(const mm_tensor_table *table, const char *path,
                              const mm_naming **naming,
                              char prefix[MM_NAME_BYTES]);

/** Whether a tensor (named without its prefix) is not a weight but a buffer or
 * constant that every program makes by itself. */
bool mm_naming_is_constant(const char *name);

#endif
