#ifndef MAGMAX_SRC_TOKENIZER_SYMBOL_TABLE_H
#define MAGMAX_SRC_TOKENIZER_SYMBOL_TABLE_H

#include "src/base/status.h"

#include <stddef.h>
#include <stdint.h>

/** Texts numbered in the order in which they were added, each once. */
typedef struct mm_symbol_table {
    int32_t n, max;
    const char **texts; /* [max], each NUL-terminated, in `pool` */
    int32_t *n_bytes;   /* [max]                                 */
    int32_t *slots;     /* number + 1 by hash, 0: free           */
    uint32_t mask;      /* slots - 1, a power of two             */
    char *pool;
    size_t pool_used;
} mm_symbol_table;

/**
 * Make room for `max` texts of pool_bytes bytes together.
 *
 * Memory   Fills *table, freed by mm_symbol_table_clear.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_symbol_table_init(int32_t max, size_t pool_bytes,
                               mm_symbol_table *table);
void mm_symbol_table_clear(mm_symbol_table *table);

/** The text's number, -1 where it is not there. */
int32_t mm_symbol_table_find(const mm_symbol_table *table, const char *text,
                             size_t n_bytes);

/** Add a joined to b; its number, or -1 where it is there already. The room
 * must not be exceeded. */
int32_t mm_symbol_table_add(mm_symbol_table *table, const char *a,
                            size_t a_bytes, const char *b, size_t b_bytes);

#endif
