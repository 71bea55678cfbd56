/* The table of measured algorithms, built in or read from a file. */

#include "kernels/cuda/product_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_ENTRIES = 512,
    N_NUMBERS = sizeof(mm_product_entry) / sizeof(int64_t)
};

struct mm_product_table {
    int n_entries;
    mm_product_entry entries[MOST_ENTRIES];
};

/* Ends with zeros: no product has m = 0. */
static const int64_t built_in[][N_NUMBERS] = {
#include "kernels/cuda/product_table.inc"
    {0}};

static void add_built_in(mm_product_table *table)
{
    const int n = (int)(sizeof built_in / sizeof *built_in) - 1;
    _Static_assert(sizeof built_in / sizeof *built_in <= MOST_ENTRIES,
                   "the built-in table is too long");
    memcpy(table->entries, built_in, (size_t)n * sizeof *table->entries);
    table->n_entries = n;
}

/** "{1, 2, ...}," with as many numbers as an entry has. */
static bool parse_entry(const char *line, mm_product_entry *entry)
{
    int64_t numbers[N_NUMBERS];
    const char *rest = line;
    for (int i = 0; i < N_NUMBERS; i++) {
        char *end = NULL;
        if (*rest++ != (i ? ',' : '{'))
            return false;
        errno = 0;
        numbers[i] = strtoll(rest, &end, 10);
        if (end == rest || errno)
            return false;
        rest = end;
    }
    memcpy(entry, numbers, sizeof *entry);
    return !strcmp(rest, "},\n") && entry->workspace_mib >= 0 &&
           entry->workspace_mib <= 1024 && entry->rank >= 0 &&
           entry->rank < MM_PRODUCT_CHOICES;
}

/** After the title, lines that begin with a brace are entries, others comments.
 */
static mm_status add_file(mm_product_table *table, FILE *file, const char *path)
{
    static const char title[] = "/* Algorithms of products";
    char line[512] = "";
    if (!fgets(line, sizeof line, file) ||
        strncmp(line, title, sizeof title - 1) != 0)
        return mm_fail(
            MM_E_FORMAT,
            "%s is not a table of algorithms: it does not begin with "
            "'%s'",
            path, title);
    for (int number = 2; fgets(line, sizeof line, file); number++) {
        if (*line != '{')
            continue;
        if (table->n_entries == MOST_ENTRIES ||
            !parse_entry(line, &table->entries[table->n_entries++]))
            return mm_fail(
                MM_E_FORMAT,
                "%s: line %d is not an algorithm of a product, or one "
                "of more than %d",
                path, number, MOST_ENTRIES);
    }
    if (ferror(file))
        return mm_fail(MM_E_IO, "cannot read %s", path);
    return MM_OK;
}

static mm_status fill(mm_product_table *table)
{
    const char *path = getenv("MAGMAX_CUDA_ALGORITHMS");
    if (!path || !*path) {
        add_built_in(table);
        return MM_OK;
    }
    FILE *file = fopen(path, "r");
    if (!file)
        return mm_fail(MM_E_IO, "MAGMAX_CUDA_ALGORITHMS: cannot read %s: %s",
                       path, strerror(errno));
    const mm_status st = add_file(table, file, path);
    (void)fclose(file);
    return st;
}

mm_status mm_product_table_create(mm_product_table **table)
{
    *table = calloc(1, sizeof **table);
    if (!*table)
        return mm_fail(MM_E_MEMORY, "no memory for a table of algorithms");
    const mm_status st = fill(*table);
    if (st != MM_OK)
        mm_product_table_destroy(table);
    return st;
}

void mm_product_table_destroy(mm_product_table **table)
{
    free(*table);
    *table = NULL;
}

const mm_product_entry *mm_product_table_find(const mm_product_table *table,
                                              const mm_product_key *key)
{
    for (int i = 0; table && i < table->n_entries; i++)
        if (!memcmp(&table->entries[i].key, key, sizeof *key))
            return &table->entries[i];
    return NULL;
}

int64_t mm_product_table_workspace(const mm_product_table *table)
{
    int64_t mib = 0;
    for (int i = 0; table && i < table->n_entries; i++)
        if (table->entries[i].workspace_mib > mib)
            mib = table->entries[i].workspace_mib;
    return mib << 20;
}
