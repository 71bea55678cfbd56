#ifndef MAGMAX_SRC_MERGE_MERGE_PLAN_H
#define MAGMAX_SRC_MERGE_MERGE_PLAN_H

#include "comm/partition.h"
#include "src/base/tensor_table.h"

#include <stdbool.h>
#include <stdint.h>

/** A file that takes part in a merge. */
typedef struct mm_merge_source {
    const char *path;
    const mm_tensor_table *table;
} mm_merge_source;

/** Adjacent tensors that are all folded, or all copied. */
typedef struct mm_merge_run {
    int64_t lo, hi;    /* elements of the output                   */
    int64_t folded_lo; /* where they begin among the folded ones   */
    bool folded;
} mm_merge_run;

/**
 * What a merge does with which elements. The output has the pre-trained file's
 * tensors in its order; those that the inputs hold are folded, the others
 * copied. Start from {0}.
 */
typedef struct mm_merge_plan {
    const mm_tensor_table *output; /* the pre-trained file's */
    mm_tensor_table folded;        /* in the same order      */
    mm_merge_run *runs;            /* cover the output       */
    int n_runs;
    int n_inputs;
} mm_merge_plan;

/**
 * Decide from the tables alone.
 *
 * Memory   Fills *plan, emptied by mm_merge_plan_clear, also after a failure.
 *          Keeps pretrained's table.
 * Ranks    Local.
 * Errors   MM_E_FORMAT naming file and tensor: a visual.* tensor that is
 *          missing in an input, a tensor that is missing in the pre-trained
 *          file, another tensor that only some inputs hold, shapes that differ;
 * no tensor to fold. MM_E_MEMORY.
 */
mm_status mm_merge_plan_init(mm_merge_plan *plan,
                             const mm_merge_source *pretrained,
                             const mm_merge_source *inputs, int n_inputs);
void mm_merge_plan_clear(mm_merge_plan *plan);

/**
 * The output elements that a rank owns: contiguous, in rank order, dividing
 * not the elements but the bytes that are read and written for them. May be
 * empty.
 */
mm_range mm_merge_plan_range(const mm_merge_plan *plan, int rank, int n_ranks);

/** A number that differs between plans over different tables. */
uint64_t mm_merge_plan_fingerprint(const mm_merge_plan *plan);

#endif
