#ifndef MAGMAX_SRC_DATA_CLASS_TEXTS_H
#define MAGMAX_SRC_DATA_CLASS_TEXTS_H

#include "src/base/log.h"
#include "src/base/status.h"

#include <stdint.h>

/**
 * Read class names from a file, or prompts, in which {} is the class name: one
 * a line, or one JSON array of strings.
 *
 * Memory   Gives *texts, one block, freed by free().
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_FORMAT naming the line (of an array: the number of the
 *          string): an empty name or prompt, a prompt without {}, a file
 *          without any; JSON that is not an array of strings.
 */
mm_status mm_class_names_read(const char *path, char ***texts, int64_t *n);
mm_status mm_prompts_read(const char *path, char ***texts, int64_t *n);

/** Warn where two classes have the same name: their rows of a head would be
 * equal. */
void mm_class_names_warn_of_duplicates(mm_log *log, const char *const *names,
                                       int64_t n);

#endif
