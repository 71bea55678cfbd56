#ifndef MAGMAX_SRC_TASKS_TEXT_LIST_H
#define MAGMAX_SRC_TASKS_TEXT_LIST_H

#include "src/base/log.h"
#include "src/base/status.h"

#include <stdint.h>

/** A list of texts from a file. Start from {0}. */
typedef struct mm_text_list {
    int64_t n;
    char **texts; /* [n], one block */
} mm_text_list;

/**
 * Read class names, or prompts, in which {} is the class name: one a line, or
 * one JSON array of strings.
 *
 * Memory   Fills *list, freed by mm_text_list_clear.
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_FORMAT naming the line (of an array: the number of the
 *          string): an empty name or prompt, a prompt without {}, a file
 *          without any; JSON that is no array of strings.
 */
mm_status mm_text_list_read_names(const char *path, mm_text_list *list);
mm_status mm_text_list_read_prompts(const char *path, mm_text_list *list);
void mm_text_list_clear(mm_text_list *list);

/** Warn where two classes have one name: their rows would be equal. */
void mm_text_list_warn_of_twins(mm_log *log, const char *const *names,
                                int64_t n);

#endif
