#ifndef MAGMAX_SRC_TRAIN_STEP_H
#define MAGMAX_SRC_TRAIN_STEP_H

#include "comm/comm.h"
#include "src/data/task.h"
#include "src/input/loader.h"
#include "src/model/config.h"
#include "src/model/head.h"

/** Settings of a training step, the same for every step of a run. */
typedef struct mm_step_plan {
    mm_comm *comm;
    mm_device *device;
    const mm_model_config *config;
    int64_t most_images; /* of a batch on this rank */
    int64_t accumulate;  /* parts that they go through the model in, at least 1;
                            at most most_images */
    int64_t most_classes; /* of a task              */
    bool recompute; /* activations in the backward pass: less memory, more time,
                       the same bits */
    double weight_decay;
    double clip; /* largest gradient norm; 0: no clipping */
    double label_smoothing;
    bool reduce_bf16; /* gradients travel between GPUs as bf16 */
} mm_step_plan;

/**
 * Data-parallel fine-tuning of the image tower under a frozen head: weights,
 * gradient, AdamW's moments and activations on one device, laid out before the
 * first step; a step allocates nothing.
 */
typedef struct mm_stepper mm_stepper;

/** What a step reports, the same on every rank. */
typedef struct mm_step_result {
    int64_t n_images; /* of its global batch; 0: there was no step */
    double loss;      /* mean over the global batch            */
    double grad_norm; /* before clipping                       */
} mm_step_result;

/**
 * Memory   Gives *stepper, freed by mm_stepper_destroy; keeps what the plan
 *          points to.
 * Ranks    Collective, same plan but for most_images, accumulate, recompute.
 * Errors   Agreed: MM_E_MEMORY; MM_E_DEVICE; MM_E_ARG for reduce_bf16 where
 *          activations are not bf16; as mm_reducer_create.
 */
mm_status mm_stepper_create(const mm_step_plan *plan, mm_stepper **stepper);
void mm_stepper_destroy(mm_stepper **stepper);

/** Device bytes: weights, their low-precision copy, gradient, moments,
 * activations and batches. Ranks: local. */
int64_t mm_stepper_n_bytes(const mm_stepper *stepper);

/** What they would be for a plan; no communicator is needed. Ranks: local.
 * Errors: MM_E_MEMORY. */
mm_status mm_stepper_count_bytes(const mm_step_plan *plan, int64_t *n_bytes);

/** Seconds that steps have waited for other ranks' gradients so far. Ranks:
 * local. */
double mm_stepper_wait_s(const mm_stepper *stepper);

/**
 * Start a task from given weights: moments at zero, logits over the task's
 * rows of the head.
 *
 * Memory   theta: host, [n parameters], borrowed for the call.
 * Ranks    Local.
 */
mm_status mm_stepper_start_task(mm_stepper *stepper, const float *theta,
                                const mm_head *head, const mm_task *task);

/**
 * One step: forward, loss (cross-entropy with label smoothing over the
 * task's classes, mean over the global batch), backward with gradients summed
 * over ranks meanwhile, clipping, AdamW. With `accumulate`, forward to backward
 * go part by part, which changes the result by rounding only.
 *
 * A device runs behind the host: *last is the result of the step *before* this
 * one, so that the device has work while the host prepares the next batch.
 *
 * Memory   batch borrowed for the call.
 * Ranks    Collective, same lr. `batch_status` is the status of this rank's
 *          batch: a failure is reported to every rank, and no weight changes.
 * Timing   Waits for the step before; this one is enqueued.
 * Repeat   Same bits on every rank and on reruns with as many ranks and parts.
 * Errors   Agreed: `batch_status` of any rank; MM_E_VALUE where the loss or the
 *          norm of the step before was NaN or infinite: neither that step nor
 *          this one changes a weight, and *last is set; MM_E_DEVICE in its
 *          place where an op of any rank failed. Not agreed: MM_E_COMM when the
 *          transport failed, when a rank is stuck (as mm_comm_watch), or when
 *          this one fails where it cannot let the others know.
 */
mm_status mm_stepper_step(mm_stepper *stepper, const mm_batch *batch,
                          mm_status batch_status, double lr,
                          mm_step_result *last);

/** Wait for the step that is under way. Ranks, Errors: as mm_stepper_step. */
mm_status mm_stepper_finish(mm_stepper *stepper, mm_step_result *last);

/** Copy the weights to the host, [n parameters]. Ranks: local. */
mm_status mm_stepper_read(mm_stepper *stepper, float *theta);

#endif
