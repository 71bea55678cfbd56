#ifndef MAGMAX_IO_HDF5_ARRAY_FILE_H
#define MAGMAX_IO_HDF5_ARRAY_FILE_H

#include "src/base/status.h"

#include <stdint.h>

/** One dataset to be written to the root of an HDF5 file. */
typedef struct mm_array {
    const char *name;
    enum { MM_ARRAY_F32, MM_ARRAY_I32, MM_ARRAY_TEXT, MM_ARRAY_STRINGS } type;
    int n_dims; /* 1 or 2; a text is a NUL-terminated string, n_dims 0 */
    int64_t shape[2];
    const void *data; /* of strings: const char *const *, n_dims 1 */
} mm_array;

/**
 * Write a small HDF5 file of arrays, atomically (features, heads).
 *
 * Ranks    Local: one rank writes.
 * Errors   MM_E_IO.
 */
mm_status mm_array_file_write(const char *path, const mm_array *arrays,
                              int n_arrays);

/**
 * Read a list of strings from the root of an HDF5 file.
 *
 * Memory   Gives *strings, one block, freed by free(); NULL, and *n 0, where
 *          the file has no such list or is not HDF5.
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_FORMAT for another dataset of that name, or more than
 *          `most` strings.
 */
mm_status mm_array_file_read_strings(const char *path, const char *name,
                                     int64_t most, char ***strings, int64_t *n);

#endif
