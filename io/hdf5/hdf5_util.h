#ifndef MAGMAX_IO_HDF5_HDF5_UTIL_H
#define MAGMAX_IO_HDF5_HDF5_UTIL_H

#include "src/base/status.h"

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

/**
 * What the readers and writers of HDF5 files share. Files are opened serially;
 * HDF5 is not thread-safe here, so only one thread of a rank may call it.
 * Handles start as MM_H5_NONE and are closed with the matching H5?close or
 * mm_h5_close.
 */
#define MM_H5_NONE ((hid_t)-1)

/** `status` with "PATH: what", and HDF5's own innermost reason. Call it right
 * after the failing call. */
mm_status mm_h5_fail(mm_status status, const char *path, const char *what);

/** An HDF5 call as mm_status, MM_E_IO where it fails. */
#define MM_H5(path, what, call) \
    ((call) < 0 ? mm_h5_fail(MM_E_IO, path, what) : MM_OK)

/** As MM_H5, keeping the handle that the call gives. */
#define MM_H5_GET(handle, path, what, call) MM_H5(path, what, (handle) = (call))

/** Whether a file starts as HDF5 files do (also behind a user block). */
bool mm_h5_is_file(int fd);

/** Create or open with our settings: no locks (network file systems refuse
 * them), new-style metadata with checksums, no time stamps. */
mm_status mm_h5_create(const char *path, hid_t *file);
mm_status mm_h5_open(const char *path, bool to_write, hid_t *file);

/** Close a file that was written: HDF5 flushes its cache only now, so a
 * full disk shows here. The handle is invalid afterwards, also on failure. */
mm_status mm_h5_finish(const char *path, hid_t *file);

/** Close any handle, tolerating MM_H5_NONE, and forget it. */
void mm_h5_close(hid_t *handle);

/** Property list for contiguous datasets that have their place at once. */
mm_status mm_h5_contiguous(const char *path, hid_t *properties);

/** Byte offset of a contiguous dataset in the file, -1 where it has none; an
 * empty one is at 0. */
int64_t mm_h5_offset(hid_t dataset);

/** Text as a scalar string of fixed length: covered by the metadata's checksum
 * in an attribute, one run of bytes in a dataset. */
mm_status mm_h5_write_text_attribute(const char *path, hid_t object,
                                     const char *name, const char *text);
mm_status mm_h5_write_text(const char *path, hid_t file, const char *name,
                           const char *text);
mm_status mm_h5_write_int_attribute(const char *path, hid_t object,
                                    const char *name, int value);

/**
 * Read a scalar text, of fixed or variable length.
 *
 * Memory   Gives *text (free), NULL where there is no such thing.
 * Errors   MM_E_FORMAT, MM_E_MEMORY.
 */
mm_status mm_h5_read_text_attribute(const char *path, hid_t object,
                                    const char *name, char **text);
mm_status mm_h5_read_text(const char *path, hid_t file, const char *name,
                          char **text);

/**
 * Check the root attributes `format` and `format_version` (up to 1).
 *
 * `*is_format` tells whether the file says it is `format`; a file that says
 * nothing is accepted.
 *
 * Errors   MM_E_FORMAT for another format of ours or a newer version.
 */
mm_status mm_h5_check_format(const char *path, hid_t file, const char *format,
                             bool *is_format);

#endif
