#ifndef MAGMAX_KERNELS_CUDA_PRODUCT_TABLE_H
#define MAGMAX_KERNELS_CUDA_PRODUCT_TABLE_H

/* A table of algorithms that were measured to be the fastest, for the variant
 * algorithms=table. bench/gpu/product_probe.c writes it. */

#include "kernels/cuda/product_plan.h"

/** The `rank`th of the heuristic's offers for that workspace, which was
 * `fingerprint`. Numbers of one size, as they stand in a line of the file. */
typedef struct mm_product_entry {
    mm_product_key key;
    int64_t workspace_mib, rank;
    mm_product_fingerprint fingerprint;
} mm_product_entry;

/**
 * The table in the file that the environment's MAGMAX_CUDA_ALGORITHMS names;
 * without it, the one that is built in.
 *
 * Errors   MM_E_IO, MM_E_FORMAT for a file that is not such a table;
 *          MM_E_MEMORY.
 */
mm_status mm_product_table_create(mm_product_table **table);
void mm_product_table_destroy(mm_product_table **table);

/** NULL where there is none, or no table. */
const mm_product_entry *mm_product_table_find(const mm_product_table *table,
                                              const mm_product_key *key);

/** The largest workspace of an entry. */
int64_t mm_product_table_workspace(const mm_product_table *table);

#endif
