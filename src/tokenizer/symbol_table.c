/* A hash table that numbers texts in the order in which they are added. */

#include "src/tokenizer/symbol_table.h"

#include "src/base/fnv.h"

#include <stdlib.h>
#include <string.h>

mm_status mm_symbol_table_init(int32_t max, size_t pool_bytes,
                               mm_symbol_table *table)
{
    uint32_t n_slots = 1024;
    while (n_slots / 2 < (uint32_t)max)
        n_slots *= 2;
    *table = (mm_symbol_table){
        .max = max,
        .texts = malloc((size_t)max * sizeof *table->texts),
        .n_bytes = malloc((size_t)max * sizeof *table->n_bytes),
        .slots = calloc(n_slots, sizeof *table->slots),
        .mask = n_slots - 1,
        /* each text ends with NUL */
        .pool = malloc(pool_bytes + (size_t)max),
    };
    if (table->texts && table->n_bytes && table->slots && table->pool)
        return MM_OK;
    mm_symbol_table_clear(table);
    return mm_fail(MM_E_MEMORY, "no memory for a table of %d symbols", max);
}

void mm_symbol_table_clear(mm_symbol_table *table)
{
    free(table->texts);
    free(table->n_bytes);
    free(table->slots);
    free(table->pool);
    *table = (mm_symbol_table){0};
}

/* The high bits mix better than the low ones. */
static uint32_t hash(const char *text, size_t n_bytes)
{
    uint64_t h = mm_fnv(MM_FNV_BEGIN, text, (int64_t)n_bytes);
    return (uint32_t)(h >> 32) ^ (uint32_t)h;
}

/* The slot that holds the text, or the free one where it belongs. */
static uint32_t slot_of(const mm_symbol_table *table, const char *text,
                        size_t n_bytes)
{
    uint32_t at = hash(text, n_bytes) & table->mask;
    for (int32_t number; (number = table->slots[at]) != 0;
         at = (at + 1) & table->mask) {
        if ((size_t)table->n_bytes[number - 1] == n_bytes &&
            memcmp(table->texts[number - 1], text, n_bytes) == 0)
            break;
    }
    return at;
}

int32_t mm_symbol_table_find(const mm_symbol_table *table, const char *text,
                             size_t n_bytes)
{
    return table->slots[slot_of(table, text, n_bytes)] - 1;
}

int32_t mm_symbol_table_add(mm_symbol_table *table, const char *a,
                            size_t a_bytes, const char *b, size_t b_bytes)
{
    MM_ASSERT(table->n < table->max);
    size_t n_bytes = a_bytes + b_bytes;
    char *text = table->pool + table->pool_used;
    memcpy(text, a, a_bytes);
    memcpy(text + a_bytes, b, b_bytes);
    text[n_bytes] = '\0';
    uint32_t at = slot_of(table, text, n_bytes);
    if (table->slots[at] != 0)
        return -1;
    table->pool_used += n_bytes + 1;
    table->texts[table->n] = text;
    table->n_bytes[table->n] = (int32_t)n_bytes;
    table->slots[at] = ++table->n;
    return table->n - 1;
}
