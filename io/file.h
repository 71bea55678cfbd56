#ifndef MAGMAX_IO_FILE_H
#define MAGMAX_IO_FILE_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/**
 * Small helpers on files, all local to the rank, all naming the path when they
 * fail (MM_E_IO).
 */

/** Read exactly n_bytes at an offset; MM_E_FORMAT ("truncated") at the end. */
mm_status mm_file_read_at(int fd, const char *path, int64_t off_bytes,
                          void *data, int64_t n_bytes);
mm_status mm_file_write_at(int fd, const char *path, int64_t off_bytes,
                           const void *data, int64_t n_bytes);

/** A whole text file, NUL-terminated, at most max_bytes. Gives *text (free). */
mm_status mm_file_read_text(const char *path, int64_t max_bytes, char **text);

/** Replace a file's content atomically: PATH.tmp, fsync, rename, fsync of the
 * folder. */
mm_status mm_file_write_text(const char *path, const char *text);

/** Whether a file can be written at PATH: MM_E_IO where something other than a
 * regular file is there, or its folder is missing or not writable. */
mm_status mm_file_check_writable(const char *path);

/** fsync PATH.tmp, rename it to PATH, fsync the folder. */
mm_status mm_file_commit(const char *tmp_path, const char *path);

/** Create a folder and its parents; MM_OK where it exists. */
mm_status mm_file_create_folder(const char *path);

bool mm_file_exists(const char *path);

/** Whether two paths name the same file. */
bool mm_file_same(const char *a, const char *b);

#endif
