/* Joining the bytes of a word into vocabulary symbols, best pair first, with a
 * heap. */

#include "src/tokenizer/byte_pairs.h"

#include <stdlib.h>

enum { NONE = -1 };

static uint64_t key_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint32_t slot_of(const mm_byte_pairs *pairs, uint64_t key)
{
    /* Fibonacci hashing: the upper bits of the product are the mixed ones. */
    uint32_t at =
        (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & pairs->mask;
    while (pairs->made[at] != NONE && pairs->keys[at] != key)
        at = (at + 1) & pairs->mask;
    return at;
}

mm_status mm_byte_pairs_init(const mm_vocabulary *vocabulary,
                             mm_byte_pairs *pairs)
{
    uint32_t n_slots = 1024;
    while (n_slots / 2 < (uint32_t)vocabulary->n_pairs)
        n_slots *= 2;
    *pairs = (mm_byte_pairs){
        .keys = malloc(n_slots * sizeof *pairs->keys),
        .made = malloc(n_slots * sizeof *pairs->made),
        .mask = n_slots - 1,
    };
    if (!pairs->keys || !pairs->made) {
        mm_byte_pairs_clear(pairs);
        return mm_fail(MM_E_MEMORY, "no memory for a vocabulary");
    }
    for (int b = 0; b < 256; b++)
        pairs->byte_symbols[b] = mm_vocabulary_byte_symbol((uint8_t)b);
    for (uint32_t i = 0; i < n_slots; i++)
        pairs->made[i] = NONE;
    for (int32_t i = 0; i < vocabulary->n_pairs; i++) {
        uint64_t key = key_of(vocabulary->pairs[i][0], vocabulary->pairs[i][1]);
        uint32_t at = slot_of(pairs, key);
        pairs->keys[at] = key;
        pairs->made[at] = MM_N_BYTE_SYMBOLS + i;
    }
    return MM_OK;
}

void mm_byte_pairs_clear(mm_byte_pairs *pairs)
{
    free(pairs->keys);
    free(pairs->made);
    *pairs = (mm_byte_pairs){0};
}

/* A word's symbols, linked, and the pairs that could be joined: a heap with the
 * smallest (symbol made, place) on top. A pair is made of earlier symbols, so
 * what a join offers anew comes after it, and one heap gives the order of
 * joining all places of the best pair from left to right. */
typedef struct chain {
    const mm_byte_pairs *pairs;
    int32_t *symbol, *previous, *next; /* [n_bytes]; next is -1 at the end */
    int32_t *made;                     /* with the next one; -1: none      */
    uint64_t *heap;                    /* [3 n_bytes]                      */
    size_t n_heap;
} chain;

enum { CHAIN_BYTES_EACH = 4 * sizeof(int32_t) + 3 * sizeof(uint64_t) };

static mm_status make_room(mm_byte_pairs_work *work, size_t n_bytes)
{
    if (n_bytes <= work->max_bytes)
        return MM_OK;
    if (n_bytes > INT32_MAX / 2)
        return mm_fail(MM_E_VALUE, "a word of %zu bytes is too long", n_bytes);
    size_t more = n_bytes < 64 ? 64 : n_bytes + n_bytes / 2;
    mm_byte_pairs_work_clear(work);
    work->block = malloc(more * CHAIN_BYTES_EACH);
    if (!work->block)
        return mm_fail(MM_E_MEMORY, "no memory for a word of %zu bytes",
                       n_bytes);
    work->max_bytes = more;
    return MM_OK;
}

void mm_byte_pairs_work_clear(mm_byte_pairs_work *work)
{
    free(work->block);
    *work = (mm_byte_pairs_work){0};
}

static void push(chain *c, uint64_t entry)
{
    size_t at = c->n_heap++;
    for (; at > 0 && c->heap[(at - 1) / 2] > entry; at = (at - 1) / 2)
        c->heap[at] = c->heap[(at - 1) / 2];
    c->heap[at] = entry;
}

static uint64_t pop(chain *c)
{
    uint64_t top = c->heap[0], last = c->heap[--c->n_heap];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < c->n_heap; at = child) {
        if (child + 1 < c->n_heap && c->heap[child + 1] < c->heap[child])
            child++;
        if (c->heap[child] >= last)
            break;
        c->heap[at] = c->heap[child];
    }
    c->heap[at] = last;
    return top;
}

/* Offer the pair that starts at a place, if the vocabulary has it. */
static void offer(chain *c, int32_t at)
{
    c->made[at] = NONE;
    if (c->next[at] < 0)
        return;
    const mm_byte_pairs *pairs = c->pairs;
    uint64_t key = key_of(c->symbol[at], c->symbol[c->next[at]]);
    c->made[at] = pairs->made[slot_of(pairs, key)];
    if (c->made[at] != NONE)
        push(c, key_of(c->made[at], at));
}

static void join(chain *c, int32_t at)
{
    int32_t gone = c->next[at];
    c->symbol[at] = c->made[at];
    c->made[gone] = NONE;
    c->next[at] = c->next[gone];
    if (c->next[at] >= 0)
        c->previous[c->next[at]] = at;
    offer(c, at);
    if (c->previous[at] >= 0)
        offer(c, c->previous[at]);
}

mm_status mm_byte_pairs_encode(const mm_byte_pairs *pairs,
                               mm_byte_pairs_work *work, const char *word,
                               size_t n_bytes, int64_t max_ids, int32_t *ids,
                               int64_t *n_ids)
{
    MM_TRY(make_room(work, n_bytes));
    uint64_t *heap = work->block;
    int32_t *numbers = (int32_t *)(heap + 3 * work->max_bytes);
    chain c = {
        .pairs = pairs,
        .heap = heap,
        .symbol = numbers,
        .previous = numbers + work->max_bytes,
        .next = numbers + 2 * work->max_bytes,
        .made = numbers + 3 * work->max_bytes,
    };
    int32_t n = (int32_t)n_bytes;
    MM_ASSERT(n >= 1);
    for (int32_t i = 0; i < n; i++) {
        c.symbol[i] = pairs->byte_symbols[(uint8_t)word[i]];
        c.previous[i] = i - 1;
        c.next[i] = i + 1 < n ? i + 1 : NONE;
    }
    c.symbol[n - 1] += MM_N_BYTE_SYMBOLS / 2;
    for (int32_t i = 0; i < n; i++)
        offer(&c, i);
    while (c.n_heap > 0) {
        uint64_t best = pop(&c);
        int32_t at = (int32_t)(uint32_t)best;
        if (c.made[at] == (int32_t)(best >> 32)) /* else joined meanwhile */
            join(&c, at);
    }
    *n_ids = 0;
    for (int32_t at = 0; at >= 0 && *n_ids < max_ids; at = c.next[at])
        ids[(*n_ids)++] = c.symbol[at];
    return MM_OK;
}
