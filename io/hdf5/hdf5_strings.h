#ifndef MAGMAX_IO_HDF5_HDF5_STRINGS_H
#define MAGMAX_IO_HDF5_HDF5_STRINGS_H

#include "io/hdf5/hdf5_util.h"

/** Lists of strings in HDF5 files: one-dimensional datasets of UTF-8 strings of
 * variable length, which texts of any bytes become and come back from
 * (src/base/utf8.h). */

/** Errors   MM_E_IO, MM_E_MEMORY. */
mm_status mm_h5_write_strings(const char *path, hid_t file, const char *name,
                              const char *const *strings, int64_t n);

/**
 * Read a list of at least one and at most `most` strings.
 *
 * Memory   Gives *strings, one block, freed by free(); NULL, and *n 0, where
 *          there is no such dataset.
 * Errors   MM_E_FORMAT naming the dataset, MM_E_MEMORY.
 */
mm_status mm_h5_read_strings(const char *path, hid_t file, const char *name,
                             int64_t most, char ***strings, int64_t *n);

#endif
