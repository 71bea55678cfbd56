#ifndef MAGMAX_SRC_MODEL_LOW_PRECISION_H
#define MAGMAX_SRC_MODEL_LOW_PRECISION_H

#include "kernels/ops.h"
#include "src/base/arena.h"

/*
 * Products read their weights and biases in the activations' type. Where that
 * is fp32 they read the parameters (theta) themselves, else their low-precision
 * copy (theta_low), which has the same layout and which adamw updates in every
 * step.
 */

/** Room for the low-precision copy of `n_params`; NULL where none is needed
 * (and while the arena counts). */
static inline mm_act *mm_low_precision_take(mm_arena *arena,
                                            const mm_device *device,
                                            int64_t n_params)
{
    int64_t act_bytes = mm_device_act_bytes(device);
    return act_bytes < (int64_t)sizeof(float)
               ? (mm_act *)mm_arena_take(arena, n_params * act_bytes)
               : NULL;
}

/** Fill it; NULL: nothing to do. Enqueued. */
static inline mm_status
mm_low_precision_fill(const mm_ops *ops, mm_stream *stream, mm_act *theta_low,
                      const float *theta, int64_t n_params)
{
    return theta_low ? ops->float_to_act(stream, theta_low, theta, n_params)
                     : MM_OK;
}

/** What products read. */
static inline const mm_act *mm_low_precision_or_theta(const mm_act *theta_low,
                                                      const float *theta)
{
    return theta_low ? theta_low : (const mm_act *)theta;
}

/** Where `weights`, theta's low-precision copy or theta, has theta's element
 * `at`. */
static inline const mm_act *mm_low_precision_at(const mm_act *weights,
                                                int64_t act_bytes,
                                                const float *theta,
                                                const float *at)
{
    return (const mm_act *)((const char *)weights + (at - theta) * act_bytes);
}

#endif
