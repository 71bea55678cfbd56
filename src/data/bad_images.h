#ifndef MAGMAX_SRC_INPUT_BAD_IMAGES_H
#define MAGMAX_SRC_INPUT_BAD_IMAGES_H

#include "comm/comm.h"
#include "io/dataset/dataset.h"
#include "src/base/log.h"

/** An image that was left out. */
typedef struct mm_bad_image {
    int64_t sample;
    char why[504]; /* names it */
} mm_bad_image;

/**
 * Which images of a half could not be decoded and were skipped: each is named
 * once, by rank 0, however often and by whichever ranks it was read.
 */
typedef struct mm_bad_images mm_bad_images;

/**
 * Memory   Gives *bad, freed by mm_bad_images_destroy.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_bad_images_create(const mm_half *half, mm_bad_images **bad);
void mm_bad_images_destroy(mm_bad_images **bad);

/** Add images that this rank could not decode. Memory: copies. Errors:
 * MM_E_MEMORY. */
mm_status mm_bad_images_add(mm_bad_images *bad, const mm_bad_image *images,
                            int64_t n);

/**
 * Send rank 0 what was added since the last call; it prints a warning for each
 * new one.
 *
 * Ranks    Collective; comm NULL: this rank alone.
 * Errors   MM_E_MEMORY, agreed.
 */
mm_status mm_bad_images_share(mm_bad_images *bad, mm_comm *comm, mm_log *log);

/** How many different images were shared so far; the same on every rank. */
int64_t mm_bad_images_count(const mm_bad_images *bad);

#endif
