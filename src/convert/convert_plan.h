#ifndef MAGMAX_SRC_CONVERT_CONVERT_PLAN_H
#define MAGMAX_SRC_CONVERT_CONVERT_PLAN_H

#include "comm/partition.h"
#include "src/convert/sizes.h"

/** Where one of our tensors comes from. */
typedef struct mm_convert_origin {
    int source; /* among the inputs */
    mm_stored stored;
    bool resized; /* positions for another grid */
} mm_convert_origin;

/** What a tensor of the output is: a range of one of ours. */
typedef struct mm_convert_target {
    int ours;
    int64_t first_elem;
    bool transposed;
} mm_convert_target;

/** From which tensors the output's are made. Start from {0}. */
typedef struct mm_convert_plan {
    mm_tensor_table ours;
    mm_convert_origin *origins; /* [ours.n_tensors] */
    mm_tensor_table output;     /* in the order of `ours` */
    mm_convert_target *targets; /* [output.n_tensors] */
    bool has_text;
} mm_convert_plan;

/**
 * Match the inputs' tensors with the model's and give them the output's names.
 *
 * Memory   Fills *plan, emptied by mm_convert_plan_clear, also after a failure.
 * Ranks    Local. Logs what is left out and what is resized.
 * Errors   MM_E_FORMAT naming every tensor (up to a few of a kind) that is
 *          missing, unexpected or of another shape; MM_E_MEMORY.
 */
mm_status mm_convert_plan_init(const mm_convert_inputs *inputs,
                               const mm_convert_model *model,
                               const mm_naming *names, mm_log *log,
                               mm_convert_plan *plan);
void mm_convert_plan_clear(mm_convert_plan *plan);

/** The output elements that a rank owns: contiguous, in rank order, about
 * equally many, and all of a tensor of ours, so that each tensor of the inputs
 * is read by one rank. May be empty. */
mm_range mm_convert_plan_range(const mm_convert_plan *plan, int rank,
                               int n_ranks);

#endif
