#ifndef MAGMAX_SRC_MODEL_SHADOW_H
#define MAGMAX_SRC_MODEL_SHADOW_H

#include "kernels/ops.h"
#include "src/base/arena.h"

/*
 * Products read their weights and biases in the activations' type. Where that
 * is fp32 they read the parameters themselves, else a shadow: a copy of the
 * same layout, which adamw writes again with every step.
 */

/** Room for the shadow of `n_params`; NULL where none is needed (and while the
 * arena counts). */
static inline mm_act *mm_shadow_take(mm_arena *arena, const mm_device *device,
                                     int64_t n_params)
{
    int64_t act_bytes = mm_device_act_bytes(device);
    return act_bytes < (int64_t)sizeof(float)
               ? (mm_act *)mm_arena_take(arena, n_params * act_bytes)
               : NULL;
}

/** Fill it; NULL: nothing to do. Enqueued. */
static inline mm_status mm_shadow_fill(const mm_ops *ops, mm_stream *stream,
                                       mm_act *shadow, const float *theta,
                                       int64_t n_params)
{
    return shadow ? ops->float_to_act(stream, shadow, theta, n_params) : MM_OK;
}

/** What products read. */
static inline const mm_act *mm_shadow_or_theta(const mm_act *shadow,
                                               const float *theta)
{
    return shadow ? shadow : (const mm_act *)theta;
}

/** Where `weights`, theta's shadow or theta, has theta's element `at`. */
static inline const mm_act *mm_shadow_at(const mm_act *weights,
                                         int64_t act_bytes, const float *theta,
                                         const float *at)
{
    return (const mm_act *)((const char *)weights + (at - theta) * act_bytes);
}

#endif
