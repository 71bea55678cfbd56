#ifndef MAGMAX_IO_GZIP_H
#define MAGMAX_IO_GZIP_H

#include "src/base/status.h"

#include <stdint.h>

/**
 * Read a whole text file, compressed by gzip or not, NUL-terminated.
 *
 * Memory   Gives *text (free()), of at most max_bytes.
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_FORMAT for a truncated or damaged file, one with a
 *          NUL byte, or one that is longer; MM_E_MEMORY.
 */
mm_status mm_gzip_read_text(const char *path, int64_t max_bytes, char **text);

#endif
