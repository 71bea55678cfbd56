#ifndef MAGMAX_SRC_EVAL_PROTOTYPES_H
#define MAGMAX_SRC_EVAL_PROTOTYPES_H

#include "src/data/task.h"
#include "src/eval/encode.h"

/**
 * A head from class means: of every class the training images' normalised
 * features are averaged, normalised, and scaled.
 *
 * Memory   Fills *head, freed by mm_head_clear. The plan's head, samples, take
 *          and context are ignored.
 * Ranks    Collective, same plan, n_classes, scale; the same bits on every
 *          rank.
 * Errors   As mm_encode; MM_E_VALUE for a class without images or without
 *          direction.
 */
mm_status mm_head_init_prototypes(const mm_encode_plan *plan,
                                  const mm_task *task, double scale,
                                  mm_head *head);

/**
 * A fixed head of orthonormal rows times `scale`: a function of the seed.
 *
 * Errors   MM_E_ARG for more classes than embed_dim.
 */
mm_status mm_head_init_orthonormal(int64_t n_classes, int64_t embed_dim,
                                   double scale, uint64_t seed, mm_head *head);

#endif
