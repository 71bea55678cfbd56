#ifndef MAGMAX_SRC_EVAL_ZERO_SHOT_H
#define MAGMAX_SRC_EVAL_ZERO_SHOT_H

#include "comm/comm.h"
#include "src/base/log.h"
#include "src/eval/encode_texts.h"
#include "src/model/head.h"
#include "src/model/model.h"
#include "src/tokenizer/tokenizer.h"

/** A batch that keeps two cores busy and in cache (docs/zeroshot.md). */
enum { MM_TEXT_BATCH_TOKENS = 2048 };

/** What a zero-shot head is made of. */
typedef struct mm_zero_shot_plan {
    mm_comm *comm;
    mm_log *log;
    mm_device *device;
    const mm_model *model; /* of mm_model_init_text */
    const mm_tokenizer *tokenizer;
    const char *const *class_names; /* [n_classes] UTF-8 */
    int64_t n_classes;
    const char *const *prompts; /* [n_prompts], {} is the class name */
    int64_t n_prompts;
    double scale;         /* 0: the weights' own, exp(logit_scale) */
    int64_t batch_tokens; /* tokens at a time on a rank            */
} mm_zero_shot_plan;

/**
 * A head from texts (Radford et al. 2021, section 3.1.4): for every class, each
 * prompt's features are normalised, averaged, normalised, and scaled.
 *
 * Memory   Fills *head, freed by mm_head_clear, with its class names and
 *          prompts. *work is filled unless NULL.
 * Ranks    Collective, same classes, prompts, scale; each rank encodes a share
 *          of the classes; the same bits on every rank.
 * Repeat   Same bits on reruns with as many ranks and threads; with others, to
 *          rounding.
 * Errors   Agreed: as mm_tokenizer_encode and mm_encode_texts; MM_E_VALUE for a
 *          class without direction or a scale that is not a number;
 * MM_E_MEMORY.
 */
mm_status mm_head_init_zero_shot(const mm_zero_shot_plan *plan, mm_head *head,
                                 mm_encode_texts_work *work);

#endif
