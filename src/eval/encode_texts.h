#ifndef MAGMAX_SRC_EVAL_ENCODE_TEXTS_H
#define MAGMAX_SRC_EVAL_ENCODE_TEXTS_H

#include "comm/comm.h"
#include "src/base/log.h"
#include "src/model/model.h"

/** Texts as token ids, each up to and with its end token. Start from {0}. */
typedef struct mm_texts {
    int64_t n;
    int64_t *begin; /* [n + 1] where each text's ids begin */
    int32_t *ids;   /* [begin[n]] one text behind another */
    int64_t capacity, ids_capacity;
} mm_texts;

/**
 * Append a text: ids up to the first of the largest id, which is the end token
 * in CLIP's vocabulary (and what open_clip pools).
 *
 * Memory   ids: [n_ids], copied.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_texts_add(mm_texts *texts, const int32_t *ids, int64_t n_ids);
void mm_texts_clear(mm_texts *texts);

/** What is to be encoded, and what is called with the results. */
typedef struct mm_encode_texts_plan {
    mm_comm *comm;
    mm_log *log;
    mm_device *device;
    const mm_model *model; /* of mm_model_init_text */
    const mm_texts *texts; /* this rank's share     */
    int64_t batch_tokens;  /* tokens at a time; at least one text goes */
    /* features [embed_dim], before normalising, of text i; borrowed */
    mm_status (*take)(void *context, int64_t i, const float *features);
    void *context;
} mm_encode_texts_plan;

/** How much was computed, on this rank. */
typedef struct mm_encode_texts_work {
    int64_t n_tokens;   /* of the texts                            */
    int64_t n_computed; /* with the padding of shorter ones        */
    double flop;        /* of what was computed                    */
} mm_encode_texts_work;

/**
 * Run the text tower over texts, long ones first, so that the texts of a batch
 * have about the same length and little is computed behind their ends.
 *
 * Memory   *work is filled unless NULL.
 * Ranks    Collective; each rank has texts of its own and takes their features,
 *          in that order.
 * Repeat   Same bits on reruns with the same share and number of threads; else
 *          to rounding.
 * Errors   Agreed: MM_E_VALUE for a token outside of the vocabulary or a text
 *          longer than the context; MM_E_MEMORY; take's own.
 */
mm_status mm_encode_texts(const mm_encode_texts_plan *plan,
                          mm_encode_texts_work *work);

#endif
