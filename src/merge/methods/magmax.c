/*
 * MagMax (Marczak, Twardowski, Trzcinski, Cygert 2024): of all tasks' changes
 * to a weight, keep the one of largest magnitude.
 *
 *     tau[j] = tau_k[j],  k = argmax_t |theta_t[j] - theta_0[j]|
 *     out = theta_0 + lambda tau
 *
 * Tasks are folded in order and the op lets a later task win a tie.
 */

#include "src/merge/method.h"

static mm_status fold(const mm_merge_settings *settings,
                      const mm_merge_block *block, const float *tuned, int task)
{
    (void)settings;
    return block->ops->max_magnitude(block->stream, block->tau, block->winner,
                                     tuned, block->base, (uint16_t)task,
                                     block->n_elems);
}

static mm_status finish(const mm_merge_settings *settings,
                        const mm_merge_block *block, float *out)
{
    return block->ops->add_scaled(block->stream, out, block->base, block->tau,
                                  1, settings->coef, block->n_elems);
}

const mm_merge_method mm_merge_magmax = {
    .name = "magmax",
    .picks_winner = true,
    .has_default_coef = true,
    .default_coef = 0.5,
    .fold = fold,
    .finish = finish,
};
