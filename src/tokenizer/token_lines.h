#ifndef MAGMAX_SRC_TOKENIZER_TOKEN_LINES_H
#define MAGMAX_SRC_TOKENIZER_TOKEN_LINES_H

#include "src/tokenizer/tokenizer.h"

#include <stdio.h>

/**
 * Encode every line of a text file and write one JSON array with an array of
 * context_length ids per line. A line ends with '\n' (optional in the last),
 * and an empty one is a text as well.
 *
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_VALUE for a line that is not UTF-8 (its number is
 *          named); MM_E_FORMAT for a file with a NUL byte; MM_E_MEMORY.
 */
mm_status mm_token_lines_write(const mm_tokenizer *tokenizer, const char *path,
                               int64_t context_length, FILE *out);

#endif
