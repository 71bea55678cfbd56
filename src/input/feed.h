#ifndef MAGMAX_SRC_INPUT_FEED_H
#define MAGMAX_SRC_INPUT_FEED_H

#include "io/dataset/dataset.h"
#include "kernels/device.h"
#include "src/data/bad_images.h"

/** What a feed prepares, and how. */
typedef struct mm_feed_plan {
    const mm_half *half;
    mm_device *device; /* that the images will be copied to */
    int64_t image_size;
    int64_t most_images; /* of a batch */
    int n_workers;       /* threads of its own that read ahead; 0: none    */
    int n_threads;       /* that work in mm_feed_next where there are none */
    bool augment;        /* the training transform, else the evaluation's  */
    uint64_t seed;       /* of the training transform                      */
    bool skip_bad;       /* leave out images that cannot be decoded        */
} mm_feed_plan;

/** Prepared images, in the order that was asked for. */
typedef struct mm_feed_batch {
    int64_t n_images;       /* without the bad ones    */
    const uint8_t *images;  /* [n_images, S, S, 3] of mm_host_alloc */
    const int64_t *samples; /* [n_images]              */
    int64_t n_bad;
    const mm_bad_image *bad; /* [n_bad] */
} mm_feed_batch;

/**
 * Reads and transforms batches of images ahead of their use: batches are
 * asked for with mm_feed_push, and come back in that order from mm_feed_next.
 * With workers, they are prepared meanwhile, by several threads each; else in
 * mm_feed_next, by OpenMP.
 *
 * Repeat   The same images for any number of workers and threads.
 */
typedef struct mm_feed mm_feed;

/**
 * Memory   Gives *feed, freed by mm_feed_destroy, which ends its threads; keeps
 *          plan->half and plan->device. All memory is taken here, but for what
 *          an image needs that is larger than any before.
 * Ranks    Local.
 * Errors   MM_E_MEMORY; MM_E_IO where the system refuses a thread.
 */
mm_status mm_feed_create(const mm_feed_plan *plan, mm_feed **feed);
void mm_feed_destroy(mm_feed **feed);

/** The number of workers for a half where the user has not chosen one: none for
 * raw pixels, which are cheap; else one for each of the rank's threads. */
int mm_feed_default_workers(const mm_half *half, int n_threads);

/** Whether another batch can be asked for now. */
bool mm_feed_has_room(const mm_feed *feed);

/** Ask for a batch; `epoch` matters to the training transform. There must be
 * room. Memory: copies samples [n], n <= most_images. Timing: returns at once.
 */
void mm_feed_push(mm_feed *feed, const int64_t *samples, int64_t n,
                  int64_t epoch);

/**
 * The oldest batch that was asked for; there must be one.
 *
 * Memory   *fed points into the feed, until the next call or mm_feed_cancel.
 * Timing   Waits until it is ready; the calling thread prepares images too.
 * Errors   MM_E_MEMORY; and, unless bad images are skipped, MM_E_FORMAT,
 *          MM_E_VALUE: those of the batch's first bad image, naming it. An
 *          image that cannot be read at all (MM_E_IO) is never skipped. The
 *          batch is used up also then.
 */
mm_status mm_feed_next(mm_feed *feed, mm_feed_batch *fed);

/** Cancel the batches that were asked for and have not been given. */
void mm_feed_cancel(mm_feed *feed);

/** Seconds spent in mm_feed_next so far. */
double mm_feed_wait_s(const mm_feed *feed);

#endif
