#ifndef MAGMAX_SRC_TRAIN_SEQUENCE_H
#define MAGMAX_SRC_TRAIN_SEQUENCE_H

#include "comm/comm.h"
#include "src/base/log.h"
#include "src/data/bad_images.h"
#include "src/data/task.h"
#include "src/model/head.h"
#include "src/model/model.h"
#include "src/train/run_dir.h"

/** How a sequence of tasks is learned. */
typedef struct mm_sequence_plan {
    mm_comm *comm;
    mm_log *log;
    mm_device *device;
    mm_run_dir *dir;
    const mm_dataset *dataset;
    const mm_task_list *tasks;
    const mm_head *head;
    const char *provenance; /* JSON object text for the checkpoints */
    bool sequential; /* start from the last task's weights, not theta_0 */
    int64_t epochs, batch_size;
    bool recompute;     /* see mm_step_plan */
    int64_t accumulate; /* parts that a rank's images of a batch go through the
                           model in */
    double lr, weight_decay, label_smoothing, clip;
    int64_t warmup_length;
    double warmup_ratio; /* of a task's steps; negative: warmup_length counts */
    bool reduce_bf16;    /* see mm_step_plan */
    uint64_t seed;
    bool shuffle, augment;
    int n_workers;      /* threads that read ahead on each rank; 0: none,
                           negative: as mm_feed_default_workers says */
    mm_bad_images *bad; /* what to do with images that cannot be decoded: note,
                           name and leave them out; NULL: fail */
} mm_sequence_plan;

/**
 * Fine-tune over every task that has no checkpoint yet, and write one for each
 * (MagMax, Marczak et al. 2024, section 4.1).
 *
 * Memory   model->theta is theta_0; it is overwritten.
 * Ranks    Collective, same plan.
 * Repeat   Same bits on reruns with as many ranks and threads; the same samples
 *          in the same batches whatever their number.
 * Errors   MM_E_ARG for more ranks than images in a batch, or more parts than
 *          images of a rank; MM_E_VALUE for a loss that is not finite, naming
 *          task, epoch and step; MM_E_IO; as mm_feed_next for an image. A task
 *          that failed leaves no checkpoint; finished ones stay.
 */
mm_status mm_sequence_run(const mm_sequence_plan *plan, mm_model *model);

#endif
