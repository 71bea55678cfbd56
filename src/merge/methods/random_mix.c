/*
 * The random baseline of MagMax's authors: for each weight the change of a task
 * drawn with equal probability. The draw depends on the seed and on
 * the element's place among the folded ones, not on ranks or blocks.
 *
 *     out = theta_0 + lambda tau_k,  k drawn for each element
 */

#include "src/merge/method.h"

static mm_status fold(const mm_merge_settings *settings,
                      const mm_merge_block *block, const float *tuned, int task)
{
    return block->ops->random_delta(block->stream, block->tau, block->winner,
                                    tuned, block->base, (uint16_t)task,
                                    (uint16_t)settings->n_tasks, settings->seed,
                                    block->first_elem, block->n_elems);
}

static mm_status finish(const mm_merge_settings *settings,
                        const mm_merge_block *block, float *out)
{
    return block->ops->add_scaled(block->stream, out, block->base, block->tau,
                                  1, settings->coef, block->n_elems);
}

const mm_merge_method mm_merge_random = {
    .name = "random",
    .picks_winner = true,
    .has_default_coef = true,
    .default_coef = 1,
    .fold = fold,
    .finish = finish,
};
