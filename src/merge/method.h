#ifndef MAGMAX_SRC_MERGE_METHOD_H
#define MAGMAX_SRC_MERGE_METHOD_H

#include "kernels/ops.h"

#include <stdbool.h>
#include <stdint.h>

/** Settings of a whole merge. */
typedef struct mm_merge_settings {
    int n_tasks;
    float coef; /* lambda */
    uint64_t seed;
} mm_merge_settings;

/** Consecutive elements that are being merged; arrays are [n_elems] on the
 * stream's device. */
typedef struct mm_merge_block {
    const mm_ops *ops;
    mm_stream *stream;
    int64_t first_elem; /* flat index among all elements that are folded */
    int64_t n_elems;
    const float *base; /* theta_0                                     */
    float *tau;        /* the merged change so far; 0 before task 0   */
    uint16_t *winner;  /* whose change tau is, where the method picks */
} mm_merge_block;

/**
 * A way to merge: fold the tasks' blocks one after the other in task order,
 * then finish the block. Nothing is kept between blocks, so ranks may share
 * the elements in any way and the bits stay the same.
 */
typedef struct mm_merge_method {
    const char *name;  /* as --method spells it                      */
    bool picks_winner; /* each element's change is one task's        */
    bool has_default_coef;
    double default_coef;

    /**
     * Fold task `task`, whose weights are `tuned`, into block->tau.
     *
     * Shapes   tuned [n_elems], device memory, borrowed until the stream
     *          passes the call.
     * Ranks    Local.
     * Timing   Enqueued.
     * Errors   The ops'.
     */
    mm_status (*fold)(const mm_merge_settings *settings,
                      const mm_merge_block *block, const float *tuned,
                      int task);

    /** After the last task: the merged weights into out [n_elems]; otherwise
     * as fold. */
    mm_status (*finish)(const mm_merge_settings *settings,
                        const mm_merge_block *block, float *out);
} mm_merge_method;

extern const mm_merge_method mm_merge_magmax;
extern const mm_merge_method mm_merge_average;
extern const mm_merge_method mm_merge_random;
extern const mm_merge_method mm_merge_task_arithmetic;

/** Every name that mm_merge_method_find finds, as a CHOICE option lists them.
 */
#define MM_MERGE_METHODS "magmax,average,random,task-arithmetic"

/** The method of that name, or NULL. */
const mm_merge_method *mm_merge_method_find(const char *name);

#endif
