/*
 * Task arithmetic (Ilharco et al. 2023): the sum of the tasks' changes. No
 * lambda suits every number of tasks, so it has no default.
 *
 *     out = theta_0 + lambda (sum over t of theta_t - theta_0)
 */

#include "src/merge/method.h"

static mm_status fold(const mm_merge_settings *settings,
                      const mm_merge_block *block, const float *tuned, int task)
{
    (void)settings, (void)task;
    return block->ops->add_delta(block->stream, block->tau, tuned, block->base,
                                 block->n_elems);
}

static mm_status finish(const mm_merge_settings *settings,
                        const mm_merge_block *block, float *out)
{
    return block->ops->add_scaled(block->stream, out, block->base, block->tau,
                                  1, settings->coef, block->n_elems);
}

const mm_merge_method mm_merge_task_arithmetic = {
    .name = "task-arithmetic",
    .fold = fold,
    .finish = finish,
};
