#ifndef MAGMAX_SRC_DATA_PACK_H
#define MAGMAX_SRC_DATA_PACK_H

#include "src/base/log.h"
#include "src/data/bad_images.h"

/** How images are packed. */
typedef struct mm_pack_plan {
    int64_t size; /* as the evaluation transform makes them, of this size; 0:
                     encoded images as they are */
    int64_t train_per_class; /* most training images of each class and domain;
                                0: all */
    int n_threads;
    const char *provenance; /* or NULL */
    bool skip_bad; /* name images that cannot be decoded and leave them out */
    mm_log *log;   /* shows progress; may be NULL                           */
} mm_pack_plan;

/** How many images a packed file holds. */
typedef struct mm_packed_counts {
    int64_t n_train, n_test, n_skipped;
} mm_packed_counts;

/**
 * Write a packed data set of a data set's images, read by several threads and
 * never held in memory together. Every image is decoded, also where its bytes
 * are stored as they are.
 *
 * Ranks    Local.
 * Repeat   The same file for any number of threads.
 * Errors   As mm_feed_next for an image; MM_E_IO; MM_E_ARG for raw pixels
 *          without a size.
 */
mm_status mm_pack(const mm_dataset *source, const mm_pack_plan *plan,
                  const char *path, mm_packed_counts *counts);

#endif
