#ifndef MAGMAX_SRC_EVAL_EVALUATE_H
#define MAGMAX_SRC_EVAL_EVALUATE_H

#include "src/data/task.h"
#include "src/eval/encode.h"

/** How many test images of one task were classified rightly. */
typedef struct mm_task_score {
    int64_t n_images;
    int64_t n_aware;    /* among the task's own classes */
    int64_t n_agnostic; /* among all classes            */
} mm_task_score;

/** What to evaluate. */
typedef struct mm_evaluate_plan {
    mm_comm *comm;
    mm_log *log;
    mm_device *device;
    const mm_model *model;
    const mm_head *head;
    const mm_dataset *dataset;
    const mm_task_list *tasks;
    int64_t batch_size;
    int n_workers;             /* as mm_encode_plan's */
    mm_bad_images *bad;        /* likewise            */
    const char *features_path; /* or NULL: where features and logits go */
} mm_evaluate_plan;

/**
 * Classify the test images of every task, each image once.
 *
 * With features_path, rank 0 also writes an HDF5 file with root datasets
 * `features` [N, E] (before normalising), `logits` [N, C] and `labels` [N] in
 * the data set's order. Images that were skipped count nowhere.
 *
 * Shapes   scores: [tasks->n_tasks], filled on every rank.
 * Ranks    Collective, same plan.
 * Repeat   As mm_encode. Of equal logits the lower class wins.
 * Errors   As mm_encode; MM_E_VALUE for logits that are not numbers.
 */
mm_status mm_evaluate(const mm_evaluate_plan *plan, mm_task_score *scores);

#endif
