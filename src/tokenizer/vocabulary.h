#ifndef MAGMAX_SRC_TOKENIZER_VOCABULARY_H
#define MAGMAX_SRC_TOKENIZER_VOCABULARY_H

#include "src/base/status.h"

#include <stdint.h>

enum {
    MM_N_BYTE_SYMBOLS = 512, /* every byte, inside a word and at its end */
    MM_N_SPECIAL_IDS = 2     /* start and end of a text                  */
};

/** A byte-pair vocabulary: symbol MM_N_BYTE_SYMBOLS + i is the two symbols of
 * pairs[i] joined, and a smaller i is joined first. Pairs consist of earlier
 * symbols, and no two join to the same text. */
typedef struct mm_vocabulary {
    int32_t n_pairs;
    int32_t (*pairs)[2];
} mm_vocabulary;

/**
 * Parse the text of a vocabulary for n_ids ids: a list of merges
 * (bpe_simple_vocab_16e6.txt, which holds more than CLIP uses and is cut, or
 * merges.txt) or a tokenizer.json, whose ids are checked.
 *
 * Memory   where: named in messages. Fills *vocabulary, freed by
 *          mm_vocabulary_clear.
 * Ranks    Local.
 * Errors   MM_E_FORMAT: what is wrong, and in which line or merge; MM_E_MEMORY.
 */
mm_status mm_vocabulary_parse(const char *text, const char *where,
                              int64_t n_ids, mm_vocabulary *vocabulary);
void mm_vocabulary_clear(mm_vocabulary *vocabulary);

/** The symbol of a byte inside a word; at its end, 256 more. */
int32_t mm_vocabulary_byte_symbol(uint8_t byte);

#endif
