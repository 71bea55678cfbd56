#ifndef MAGMAX_IO_DATASET_FOLDER_SCAN_H
#define MAGMAX_IO_DATASET_FOLDER_SCAN_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** Bytes that grow. Start from {0}; `data` is the caller's to free. */
typedef struct mm_block {
    char *data;
    int64_t n_bytes, capacity;
} mm_block;

/** Memory  Copies. Errors: MM_E_MEMORY. */
mm_status mm_block_append(mm_block *block, const void *data, int64_t n_bytes);

/** Looks for images below one folder. Start with `root` set, the rest 0. */
typedef struct mm_folder_scan {
    const char *root;
    int64_t n_left_out;       /* files and folders that are none */
    char first_left_out[512]; /* relative to root */
} mm_folder_scan;

/**
 * Names of the folders directly in root/below, in byte order; hidden ones are
 * left out. `below` may be "".
 *
 * Memory   Appends each name with its NUL to *names.
 * Ranks    Local.
 * Errors   MM_E_IO naming what could not be read; MM_E_MEMORY.
 */
mm_status mm_folder_scan_folders(mm_folder_scan *scan, const char *below,
                                 mm_block *names);

/**
 * Paths, relative to root, of the images in root/below and in the folders
 * there, links followed, in byte order of the paths. The names decide, and the
 * first bytes of files whose names say nothing.
 *
 * Memory   Appends each path with its NUL to *paths; adds their number to *n.
 * Ranks    Local.
 * Timing   One pass over each folder; where the file system tells what an
 *          entry is, no call for each file.
 * Errors   MM_E_IO, MM_E_MEMORY; MM_E_FORMAT for an image of a kind that cannot
 *          be read, and for folders that are nested without end.
 */
mm_status mm_folder_scan_images(mm_folder_scan *scan, const char *below,
                                mm_block *paths, int64_t *n);

#endif
