#ifndef MAGMAX_SRC_TOKENIZER_CLEAN_TEXT_H
#define MAGMAX_SRC_TOKENIZER_CLEAN_TEXT_H

#include "src/base/status.h"

#include <stddef.h>

/**
 * Clean a text as open_clip does before it is split: character references of
 * HTML5 resolved twice (Python's html.unescape), white space at the ends
 * removed (str.strip), other white space made one blank, lower case
 * (str.lower). What ftfy would repair is left as it is.
 *
 * Memory   Gives *cleaned (free()), NUL-terminated, valid UTF-8.
 * Ranks    Local. Repeat: same everywhere; letters newer than Unicode 14 are
 *          lower-cased as the installed libunistring knows them.
 * Errors   MM_E_VALUE for a text that is not UTF-8 (the byte is named);
 *          MM_E_MEMORY.
 */
mm_status mm_clean_text(const char *utf8, char **cleaned, size_t *n_bytes);

#endif
