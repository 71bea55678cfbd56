#ifndef MAGMAX_SRC_BASE_UTF8_H
#define MAGMAX_SRC_BASE_UTF8_H

#include "src/base/status.h"

#include <jansson.h>
#include <stdbool.h>

/*
 * How text from outside (paths, names of classes and tensors) gets into JSON
 * and into HDF5's strings, which hold nothing but UTF-8, while a path may have
 * any bytes.
 *
 * Valid UTF-8 is stored as it stands. Each byte that is no part of a valid
 * character becomes a backslash, an "x" and the byte's two hexadecimal digits
 * in capitals: "caf<E9>.h5" is stored as "caf\xE9.h5". So that this cannot be
 * mistaken, a backslash that looks like the start of such an escape is itself
 * escaped, as "\x5C": a name that has the four characters "\xE9" is stored as
 * "\x5CxE9". No two texts are stored alike.
 *
 * JSON writes each backslash twice. docs/utf8.md tells users.
 */

/** Whether a text is UTF-8 (then its stored form may still be another). */
bool mm_utf8_is_valid(const char *text);

/** The form in which a text is stored. NULL without memory.
 *
 * Memory   Gives a text (free). */
char *mm_utf8_escape(const char *text);

/**
 * Turn a text back, in place, into what mm_utf8_escape was given. One that
 * mm_utf8_escape gives for nothing stays as it is.
 *
 * Errors   MM_E_MEMORY.
 */
mm_status mm_utf8_unescape(char *text);

/** The stored form as a JSON string; NULL without memory, and for NULL. */
json_t *mm_utf8_json(const char *text);

#endif
