#ifndef MAGMAX_SRC_TRAIN_RUN_DIR_H
#define MAGMAX_SRC_TRAIN_RUN_DIR_H

#include "comm/comm.h"
#include "src/base/options.h"

/**
 * A run's folder: config.json (what repeats the run), log.jsonl (one object a
 * line), task_000.h5 ... Rank 0 writes; collective calls return the same status
 * on every rank.
 */
typedef struct mm_run_dir mm_run_dir;

/**
 * Open a folder for a new run, or to continue one; no other run can open it
 * until it is closed or the process ends.
 *
 * Memory   Gives *dir, freed by mm_run_dir_close.
 * Ranks    Collective, same path, program; to close is local.
 * Errors   MM_E_ARG naming the option in which the run that is there differs;
 *          MM_E_IO for a folder that cannot be written, or that another run
 *          keeps in use (10 s); MM_E_FORMAT for a config.json that is not ours.
 */
mm_status mm_run_dir_open(mm_comm *comm, const char *path, const char *program,
                          const mm_options *options, mm_run_dir **dir);
void mm_run_dir_close(mm_run_dir **dir);

/** Where task `task`'s checkpoint belongs. Ranks: local. */
void mm_run_dir_task_path(const mm_run_dir *dir, int task, char path[4096]);

/** Whether that checkpoint is there. Ranks: collective, same task. */
mm_status mm_run_dir_has_task(mm_run_dir *dir, int task, bool *there);

/** Remove the log's lines of `task`, which starts from its beginning again.
 * Ranks: collective, same task. */
mm_status mm_run_dir_restart_task(mm_run_dir *dir, int task);

/** One step, as log.jsonl has it. */
typedef struct mm_step_entry {
    int task;
    int64_t epoch, step; /* step from 0 within the task */
    double loss, lr, grad_norm;
    int64_t n_images;    /* global batch               */
    double images_per_s; /* of this step               */
    double wait_s;       /* of it, waiting for others  */
    double input_s;      /* of it, waiting for images  */
    int64_t n_skipped;   /* bad images, in this step   */
} mm_step_entry;

/** Append a line. Ranks: local, and other ranks than 0 do nothing; an error is
 * kept and reported by mm_run_dir_flush. */
void mm_run_dir_log_step(mm_run_dir *dir, const mm_step_entry *entry);

/** Bring the log to disk. Ranks: collective. Errors: MM_E_IO, agreed. */
mm_status mm_run_dir_flush(mm_run_dir *dir);

#endif
