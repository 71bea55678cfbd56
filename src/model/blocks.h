#ifndef MAGMAX_SRC_MODEL_BLOCKS_H
#define MAGMAX_SRC_MODEL_BLOCKS_H

#include "src/base/arena.h"
#include "src/model/config.h"
#include "src/model/params.h"

/** What every layer norm of CLIP adds to the variance. */
static const float mm_norm_eps = 1e-5f;

/**
 * The residual blocks of one tower on one device (pre-norm: attention, then
 * the MLP; Vaswani et al. 2017, Radford et al. 2019), over sequences of equal
 * length.
 *
 * A tower's features depend on one token per sequence, its pooled one. So
 * everything after the last block's attention is computed for that token only.
 */
typedef struct mm_blocks mm_blocks;

/** What a forward pass keeps for the backward pass. */
typedef enum mm_keep {
    MM_KEEP_NOTHING, /* there is none */
    MM_KEEP_INPUTS,  /* what each block received; the rest is computed again,
                        but for the last block's (Chen et al. 2016) */
    MM_KEEP_ALL
} mm_keep;

/**
 * Memory   Gives *blocks, freed by mm_blocks_destroy; keeps device, stream,
 *          config. Activations come with mm_blocks_lay_out.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_blocks_create(mm_device *device, mm_stream *stream,
                           const mm_model_config *config, mm_tower tower,
                           mm_keep keep, int64_t max_sequences,
                           int64_t max_tokens, mm_blocks **blocks);
void mm_blocks_destroy(mm_blocks **blocks);

/** Take device memory for passes over up to max_sequences, of max_tokens in
 * all: called over an empty arena to count, then over the memory. */
void mm_blocks_lay_out(mm_blocks *blocks, mm_arena *arena);

/** Buffers that a tower and its blocks share; rows of width C, n tokens, B
 * sequences. */
typedef struct mm_blocks_ports {
    mm_act *x;     /* [n,C] block 0's input: the tower writes it      */
    mm_act *spare; /* [n,C] the tower's until the forward pass        */
    mm_act *out;   /* [B,C] the forward pass leaves the pooled tokens */
    /* Training only. */
    mm_act *dout;      /* [B,C] the tower writes the gradient of `out`  */
    mm_act *dx;        /* [n,C] the backward pass leaves that of `x`    */
    mm_act *dspare[2]; /* [n,C] the tower's before and after that pass  */
} mm_blocks_ports;

mm_blocks_ports mm_blocks_ports_of(const mm_blocks *blocks);

/**
 * Shapes   theta: the tower's flat buffer; weights: theta or its
 *          low-precision copy (src/model/low_precision.h); `pooled`
 *          [n_sequences], for each the row of its pooled token among all rows,
 *          or NULL: its first token.
 * Memory   Device pointers, borrowed until the stream passes.
 * Timing   Enqueued.
 */
mm_status mm_blocks_forward(mm_blocks *blocks, const float *theta,
                            const mm_act *weights, const int64_t *pooled,
                            int64_t n_sequences, int64_t n_tokens);

/**
 * The gradient of the last bias of block `layer`, for the op that makes the
 * gradient of the block's output; NULL where mm_blocks_backward adds it
 * up (mm_device_sums_with_gradients). Block `layer` + 1 takes care of it for
 * all but the last one.
 */
float *mm_blocks_exit_bias_grad(const mm_blocks *blocks, float *grad,
                                int64_t layer);

/**
 * One block's part of the backward pass of the last forward pass, which pooled
 * first tokens; last block first. grad = (grad if `accumulate`) + dL/dtheta.
 *
 * Timing   Enqueued.
 * Repeat   Same bits whatever was kept.
 */
mm_status mm_blocks_backward(mm_blocks *blocks, const float *theta,
                             const mm_act *weights, float *grad, int64_t layer,
                             bool accumulate);

/** For tests: what block `layer` received (training). */
const mm_act *mm_blocks_input(const mm_blocks *blocks, int64_t layer);

/** Multiply-adds times two of the products and attention over one sequence of
 * `n_tokens`, as usually counted: every token in every block. */
double mm_blocks_flop(const mm_tower_config *tower, int64_t n_tokens);

#endif
