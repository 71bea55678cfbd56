#ifndef MAGMAX_SRC_BASE_NAMES_H
#define MAGMAX_SRC_BASE_NAMES_H

#include "src/base/status.h"

#include <stdint.h>

/** Index of the name that is fewest edits away (Levenshtein), ignoring case and
 * the difference of '-' and '_'; -1 where n is 0. */
int mm_names_nearest(const char *given, const char *const *names, int n);

/**
 * Fail for a name that is not known: "unknown WHAT 'given'; did you mean ...?
 * Known: a, b, c".
 *
 * Errors   Returns MM_E_ARG.
 */
mm_status mm_names_unknown(const char *what, const char *given,
                           const char *const *names, int n);

/**
 * Split "a,b,c" into its pieces.
 *
 * Memory   Gives *pieces, one block, freed by free().
 * Errors   MM_E_ARG for an empty piece, MM_E_MEMORY.
 */
mm_status mm_names_split(const char *text, char ***pieces, int *n);

/**
 * Copy a list of strings; NULL in it becomes "".
 *
 * Memory   Gives *copy, one block, freed by free().
 * Errors   MM_E_MEMORY.
 */
mm_status mm_names_copy(const char *const *names, int64_t n, char ***copy);

#endif
