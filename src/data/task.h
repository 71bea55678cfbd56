#ifndef MAGMAX_SRC_DATA_TASK_H
#define MAGMAX_SRC_DATA_TASK_H

#include "io/dataset/dataset.h"

/** How a data set is divided into a sequence of tasks. */
typedef enum mm_split_strategy {
    MM_SPLIT_NONE,  /* one task: everything                            */
    MM_SPLIT_CLASS, /* task t has classes floor(C/n t)..floor(C/n (t+1)) */
    MM_SPLIT_DATA,  /* of each class, samples t len/n .. (t+1) len/n    */
    MM_SPLIT_DOMAIN /* each domain is a task, in the data set's order   */
} mm_split_strategy;

/** One task: its classes and its samples. */
typedef struct mm_task {
    int n_classes;
    int32_t *classes; /* [n_classes] labels = rows of the head, ascending   */
    int32_t *local;   /* [rows of the head] label -> place in classes, or -1 */
    int64_t n_train;
    int64_t *train; /* [n_train] indices into the training half, ascending */
    int64_t n_test;
    int64_t *test; /* [n_test] likewise, test half                        */
} mm_task;

typedef struct mm_task_list {
    int n_tasks;
    mm_task *tasks;
} mm_task_list;

/** What to divide, and how. */
typedef struct mm_split_plan {
    mm_split_strategy strategy;
    int n_splits;  /* 0: the strategy's own number (1, or domains)    */
    int n_classes; /* rows of the head                                */
    int64_t train_per_class; /* most training samples of each class and domain;
                                0: all */
    int64_t test_per_class;  /* likewise, test half                          */
    bool need_train;         /* an empty training half of a task is an error */
    bool need_test;
} mm_split_plan;

/**
 * Divide a data set. A class split gives every task its own classes in both
 * halves; a data split divides the training samples, and every task is tested
 * on the whole test half; a domain split divides both by domain; in the last
 * two, a task has all classes. A limit of N keeps the first N of each class
 * and domain in the data set's order, before dividing.
 *
 * Memory   Fills *list, freed by mm_task_list_clear. Start from {0}.
 * Ranks    Local. Repeat: same everywhere.
 * Errors   MM_E_VALUE: a label beyond the head's rows (index and label given),
 *          a head whose rows do not match the data set's named classes.
 *          MM_E_ARG: more tasks than classes (a task without classes), a task
 *          without samples (which task, which half), a domain split of data
 *          without domains or another number of tasks than domains.
 */
mm_status mm_task_list_init(const mm_dataset *dataset,
                            const mm_split_plan *plan, mm_task_list *list);
void mm_task_list_clear(mm_task_list *list);

/** "class", "data", "domain"; NULL is MM_SPLIT_NONE. */
mm_split_strategy mm_split_strategy_of(const char *name);

#endif
