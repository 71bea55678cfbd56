#ifndef MAGMAX_SRC_MODEL_TEXT_H
#define MAGMAX_SRC_MODEL_TEXT_H

#include "kernels/ops.h"
#include "src/model/config.h"
#include "src/model/params.h"

/**
 * CLIP's text tower (Radford et al. 2021, section 2.4; open_clip's
 * TextTransformer), forward only. The weights are the caller's flat buffer, in
 * mm_params_text_table's layout.
 *
 * A token sees those before it alone, and the features are the end token's: so
 * what follows a text's end changes nothing, and a batch is only as long as its
 * longest text, end included.
 */
typedef struct mm_text mm_text;

/**
 * Memory   Gives *text, freed by mm_text_destroy; keeps device, stream, config
 *          (which has a text tower). Takes all device memory that a pass over
 *          up to `max_tokens` tokens needs, however many texts they are, and
 *          reserves the stream's scratch.
 * Ranks    Local.
 * Errors   MM_E_MEMORY naming the size.
 */
mm_status mm_text_create(mm_device *device, mm_stream *stream,
                         const mm_model_config *config, int64_t max_tokens,
                         mm_text **text);
void mm_text_destroy(mm_text **text);

/**
 * Features of texts, before normalising.
 *
 * Shapes   theta [mm_params_text_table's n_elems]; weights: theta or its
 *          low-precision copy (src/model/low_precision.h); tokens [B,T], each
 *          in [0, vocab_size), T at most the context length; ends [B]: for
 *          each text b * T + the place of its end token; *features
 *          [B, embed_dim], owned by the text tower, valid until the next
 *          forward. B T <= max_tokens.
 * Memory   Device pointers, borrowed until the stream passes.
 * Ranks    Local.
 * Timing   Enqueued.
 * Repeat   Same bits for the same B, T and number of threads; a text's features
 *          agree to rounding whatever else is in the batch.
 */
mm_status mm_text_forward(mm_text *text, const float *theta,
                          const mm_act *weights, const int32_t *tokens,
                          const int64_t *ends, int64_t n_texts,
                          int64_t n_tokens, float **features);

/** Multiply-adds times two of the products and attention that a forward pass
 * over one text of `n_tokens` computes. */
double mm_text_forward_flop(const mm_model_config *config, int64_t n_tokens);

#endif
