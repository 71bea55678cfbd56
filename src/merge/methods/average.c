/*
 * The mean of the tasks' changes: with lambda = 1, the mean of their weights.
 *
 *     out = theta_0 + lambda ((sum over t of theta_t - theta_0) / T)
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
                                  (float)settings->n_tasks, settings->coef,
                                  block->n_elems);
}

const mm_merge_method mm_merge_average = {
    .name = "average",
    .has_default_coef = true,
    .default_coef = 1,
    .fold = fold,
    .finish = finish,
};
