/* The learning rate of a step: linear warm-up, then a cosine. */

#include "src/train/schedule.h"

#include <math.h>

double mm_schedule_lr(double lr, int64_t step, int64_t n_steps,
                      int64_t n_warmup)
{
    if (step < n_warmup)
        return lr * (double)(step + 1) / (double)n_warmup;
    double done = (double)(step - n_warmup) / (double)(n_steps - n_warmup);
    return 0.5 * (1.0 + cos(3.141592653589793238 * done)) * lr;
}
