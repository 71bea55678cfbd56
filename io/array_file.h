#ifndef MAGMAX_IO_ARRAY_FILE_H
#define MAGMAX_IO_ARRAY_FILE_H

#include "src/base/status.h"

#include <stdint.h>

/** One dataset to be written to the root of an HDF5 file. */
typedef struct mm_array {
    const char *name;
    enum { MM_ARRAY_F32, MM_ARRAY_I32, MM_ARRAY_TEXT } type;
    int n_dims; /* 1 or 2; a text is a NULL-terminated string, n_dims 0 */
    int64_t shape[2];
    const void *data;
} mm_array;

/**
 * Write a small HDF5 file of arrays, atomically (features, heads).
 *
 * Ranks    Local: one rank writes.
 * Errors   MM_E_IO.
 */
mm_status mm_array_file_write(const char *path, const mm_array *arrays,
                              int n_arrays);

#endif
