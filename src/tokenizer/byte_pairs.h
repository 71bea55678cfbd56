#ifndef MAGMAX_SRC_TOKENIZER_BYTE_PAIRS_H
#define MAGMAX_SRC_TOKENIZER_BYTE_PAIRS_H

#include "src/tokenizer/vocabulary.h"

#include <stddef.h>

/** A vocabulary arranged for joining. */
typedef struct mm_byte_pairs {
    int32_t byte_symbols[256];
    uint64_t *keys; /* left << 32 | right                           */
    int32_t *made;  /* what they join to                             */
    uint32_t mask;  /* slots - 1                                     */
} mm_byte_pairs;

/** Where a word is joined; grows with the longest. Start from {0}, free by
 * mm_byte_pairs_work_clear. */
typedef struct mm_byte_pairs_work {
    size_t max_bytes;
    void *block;
} mm_byte_pairs_work;

/**
 * Memory   Fills *pairs, freed by mm_byte_pairs_clear.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_byte_pairs_init(const mm_vocabulary *vocabulary,
                             mm_byte_pairs *pairs);
void mm_byte_pairs_clear(mm_byte_pairs *pairs);

/**
 * Encode one word: its bytes' symbols, joined in the vocabulary's order until
 * no pair can be. Writes the first max_ids.
 *
 * Memory   word: [n_bytes], n_bytes > 0. ids: room for max_ids > 0.
 * Ranks    Local.
 * Timing   Blocking; O(n log n) of the bytes.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_byte_pairs_encode(const mm_byte_pairs *pairs,
                               mm_byte_pairs_work *work, const char *word,
                               size_t n_bytes, int64_t max_ids, int32_t *ids,
                               int64_t *n_ids);
void mm_byte_pairs_work_clear(mm_byte_pairs_work *work);

#endif
