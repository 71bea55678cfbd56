#ifndef MAGMAX_IO_PYTHON_NPY_H
#define MAGMAX_IO_PYTHON_NPY_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { MM_NPY_MAX_DIMS = 8 };

/** What the header of a NumPy array says. */
typedef struct mm_npy {
    char kind; /* 'u' or 'i' */
    int elem_bytes;
    bool big_endian;
    int n_dims;
    int64_t shape[MM_NPY_MAX_DIMS];
    int64_t n_elems;
    int64_t n_bytes; /* of the elements */
} mm_npy;

/** Bytes before the header's text: magic, version and its length. */
enum { MM_NPY_MAX_PREFIX = 12, MM_NPY_MAX_HEADER = 1 << 16 };

/**
 * Read the prefix: format versions 1 to 3.
 *
 * Memory   prefix: [MM_NPY_MAX_PREFIX]. Sets its length and that of the text
 *          that follows it (at most MM_NPY_MAX_HEADER).
 * Ranks    Local.
 * Errors   MM_E_FORMAT, without the name of the file, for the caller to add.
 */
mm_status mm_npy_parse_prefix(const uint8_t *prefix, int *prefix_bytes,
                              int *text_bytes);

/**
 * Parse the header's text, the Python literal of a dictionary: integers of 1 to
 * 8 bytes in C order.
 *
 * Memory   text: NUL-terminated.
 * Ranks    Local.
 * Errors   As above.
 */
mm_status mm_npy_parse(const char *text, mm_npy *npy);

/** Element i as int64; beyond its range INT64_MAX. */
int64_t mm_npy_element(const mm_npy *npy, const uint8_t *data, int64_t i);

#endif
