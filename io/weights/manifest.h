#ifndef MAGMAX_IO_WEIGHTS_MANIFEST_H
#define MAGMAX_IO_WEIGHTS_MANIFEST_H

#include "src/base/tensor_table.h"

/**
 * The text that lists a checkpoint's checksums: one line
 * "<crc32, 8 hex digits>  <name>" for each tensor in order, then for root
 * datasets under their path
 * ("/provenance"), then the CRC-32 of all lines before and the word "manifest".
 * Names are stored as src/base/utf8.h says.
 */

/** One line's content; the name is not NUL-terminated. */
typedef struct mm_manifest_line {
    uint32_t crc;
    const char *name;
    int name_bytes;
} mm_manifest_line;

/**
 * Memory   Gives *text (free). `names` and `texts`: root datasets, ended by a
 *          NULL name; a NULL text is left out.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_manifest_write(const mm_tensor_table *table, const uint32_t *crc,
                            const char *const *names, const char *const *texts,
                            char **text);

/**
 * Check the last line and cut it off, leaving the others to
 * mm_manifest_next.
 *
 * Memory   Changes `text`. `path` is for messages.
 * Ranks    Local.
 * Errors   MM_E_FORMAT.
 */
mm_status mm_manifest_check(const char *path, char *text);

/** The next line; false at the end or where a line is malformed (*cursor then
 * does not point to the terminating NUL). Start with *cursor at the text. */
bool mm_manifest_next(const char **cursor, mm_manifest_line *line);

bool mm_manifest_is(const mm_manifest_line *line, const char *name);

/** Whether a line is a tensor's: has its name, in the stored form of
 * src/base/utf8.h, or as it stands, as earlier versions wrote it.
 *
 * Errors   MM_E_MEMORY. */
mm_status mm_manifest_is_of(const mm_manifest_line *line, const char *tensor,
                            bool *is_of);

#endif
