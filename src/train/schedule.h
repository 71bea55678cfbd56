#ifndef MAGMAX_SRC_TRAIN_SCHEDULE_H
#define MAGMAX_SRC_TRAIN_SCHEDULE_H

#include <stdint.h>

/**
 * Learning rate of step `step` (from 0) of `n_steps`: linear warm-up,
 * lr (step+1)/warmup while step < warmup, then half a cosine down to 0 over
 * the remaining steps (Loshchilov and Hutter 2017).
 */
double mm_schedule_lr(double lr, int64_t step, int64_t n_steps,
                      int64_t n_warmup);

#endif
