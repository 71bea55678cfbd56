#ifndef MAGMAX_SRC_TOKENIZER_UNESCAPE_H
#define MAGMAX_SRC_TOKENIZER_UNESCAPE_H

#include <stddef.h>

/**
 * Resolve HTML's character references as Python's html.unescape: named ones,
 * with the longest name that fits, and numeric ones, of which the
 * invalid become U+FFFD or are dropped.
 *
 * Memory   text: [n_bytes] valid UTF-8. out: room for n_bytes + n_bytes / 4,
 *          may not overlap: two of the names stand for more bytes than they
 *          have.
 * Errors   none; returns the bytes written.
 */
size_t mm_unescape(const char *text, size_t n_bytes, char *out);

#endif
