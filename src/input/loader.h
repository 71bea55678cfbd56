#ifndef MAGMAX_SRC_INPUT_LOADER_H
#define MAGMAX_SRC_INPUT_LOADER_H

#include "src/data/task.h"
#include "src/input/feed.h"

#include <stdbool.h>

/** What a loader draws from, and how. */
typedef struct mm_loader_plan {
    const mm_half *half;
    mm_device *device; /* that batches will be copied to */
    int64_t image_size;
    int64_t batch_size; /* global */
    int rank, n_ranks;
    int n_workers; /* threads that read ahead; 0: in mm_loader_batch, by ... */
    int n_threads; /* ... as many */
    uint64_t seed;
    bool shuffle, augment;
    bool skip_bad;
} mm_loader_plan;

/** This rank's share of one global batch; a loader's in mm_host_alloc's memory.
 */
typedef struct mm_batch {
    int64_t n_images;      /* here; may be 0               */
    int64_t n_global;      /* over all ranks, with bad ones */
    const uint8_t *images; /* [n_images, S, S, 3]          */
    const int32_t *labels; /* [n_images] task-local labels */
    int64_t n_bad;         /* here: left out               */
    const mm_bad_image *bad;
} mm_batch;

/**
 * Cuts a task's training samples into batches, and reads them ahead of the
 * step, also beyond the end of an epoch. The order is a function of
 * (seed, task, epoch), a sample's crop of (seed, epoch, sample), so any number
 * of ranks sees the same global batches; the last one of an epoch may be
 * smaller.
 *
 * With skip_bad, an image that cannot be decoded is missing from its batch, in
 * every epoch, and nothing takes its place: the global batch is the same for
 * any number of ranks, and the step's mean is over the images that are left.
 * The caller sums n_images over ranks to know how many those are.
 */
typedef struct mm_loader mm_loader;

/**
 * Memory   Gives *loader, freed by mm_loader_destroy; keeps plan->half and
 *          plan->device. All memory that batches need is taken here, but for
 *          the index of a larger task and what mm_feed needs.
 * Ranks    Local.
 * Errors   As mm_feed_create.
 */
mm_status mm_loader_create(const mm_loader_plan *plan, mm_loader **loader);
void mm_loader_destroy(mm_loader **loader);

/** Most images that this rank can get in one batch. */
int64_t mm_loader_most_images(const mm_loader *loader);

/** Start a task of n_epochs; keeps `task`. Errors:
 * MM_E_MEMORY. */
mm_status mm_loader_start_task(mm_loader *loader, const mm_task *task,
                               int64_t task_number, int64_t n_epochs);

/** Steps of one epoch of the current task. */
int64_t mm_loader_n_steps(const mm_loader *loader);

/** Start any epoch. Its batches are taken in their order; where it follows the
 * last epoch, its first ones have been read ahead. */
void mm_loader_start_epoch(mm_loader *loader, int64_t epoch);

/**
 * Batch `step` of the epoch, from 0, one after the other.
 *
 * Memory   The batch points into the loader, until the next call.
 * Errors   As mm_feed_next. The counts of *batch are set even then.
 */
mm_status mm_loader_batch(mm_loader *loader, int64_t step, mm_batch *batch);

/** Seconds that mm_loader_batch has taken so far. */
double mm_loader_wait_s(const mm_loader *loader);

#endif
