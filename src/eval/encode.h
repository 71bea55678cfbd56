#ifndef MAGMAX_SRC_EVAL_ENCODE_H
#define MAGMAX_SRC_EVAL_ENCODE_H

#include "comm/comm.h"
#include "src/base/log.h"
#include "src/data/bad_images.h"
#include "src/model/head.h"
#include "src/model/model.h"

/** The results for consecutive samples of one rank's share, in its order. */
typedef struct mm_encoded {
    const int64_t *samples; /* [n] indices into the half             */
    int64_t n;
    const float *features; /* [n, embed_dim] before normalising      */
    const float *logits;   /* [n, n_classes], or NULL without a head */
} mm_encoded;

/** What is to be encoded, and what is called with the results. */
typedef struct mm_encode_plan {
    mm_comm *comm;
    mm_log *log;
    mm_device *device;
    const mm_model *model;
    const mm_head *head; /* or NULL: features only */
    const mm_half *half;
    const int64_t *samples; /* [n_samples] the same on every rank */
    int64_t n_samples;
    int64_t batch_size; /* images at a time on a rank */
    int n_workers;      /* threads that read ahead; 0: none, negative: as
                           mm_feed_default_workers says */
    mm_bad_images *bad; /* what to do with images that cannot be decoded: note
                           and name them; NULL: fail */
    mm_status (*take)(void *context, const mm_encoded *encoded);
    void *context;
} mm_encode_plan;

/**
 * Run the image tower over samples, each rank over its contiguous share
 * (mm_partition of n_samples), images as the evaluation transform makes them,
 * read ahead. With `bad`, images that cannot be decoded are left out.
 *
 * Memory   What `take` is given is borrowed for that call.
 * Ranks    Collective, same samples, batch_size; a head and `bad` on all ranks
 *          or none. `take` is called on the rank that has the samples.
 * Repeat   Same bits on reruns with as many ranks and threads; with others, a
 *          sample's features agree to rounding.
 * Errors   Agreed: as mm_feed_next, or take's own.
 */
mm_status mm_encode(const mm_encode_plan *plan);

#endif
