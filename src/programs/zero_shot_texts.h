#ifndef MAGMAX_SRC_PROGRAMS_ZERO_SHOT_TEXTS_H
#define MAGMAX_SRC_PROGRAMS_ZERO_SHOT_TEXTS_H

#include "src/programs/program.h"

/** The class names and prompts of a zero-shot head. Start from {0}. */
typedef struct mm_zero_shot_texts {
    char **class_names; /* [n_classes], one block */
    int64_t n_classes;
    char **prompts; /* [n_prompts], one block */
    int64_t n_prompts;
} mm_zero_shot_texts;

/**
 * Class names from --classnames, else from the table of benchmarks or the files
 * of --dataset; prompts from --templates, else that table's, else "a photo of a
 * {}.". Says what was chosen, and warns of classes that share a name.
 *
 * Memory   Fills *texts, freed by mm_zero_shot_texts_clear.
 * Ranks    Collective, but not agreed: every rank reads the files, rank 0 scans
 *          a folder for all.
 * Errors   MM_E_ARG where nothing names the classes; as mm_class_names_read,
 *          mm_prompts_read, mm_dataset_open.
 */
mm_status mm_zero_shot_texts_read(const mm_job *job, mm_zero_shot_texts *texts);
void mm_zero_shot_texts_clear(mm_zero_shot_texts *texts);

#endif
