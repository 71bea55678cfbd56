/* The residual blocks of a tower, forward and backward, one op per line, and
 * the layout of their activations. */

#include "src/model/blocks.h"

#include "src/model/low_precision.h"

#include <stdlib.h>

/** What one block computes, in order. Where activations are not kept all blocks
 * share one set; in inference `x`, `middle` and the next block's `x` are one
 * buffer. */
typedef struct block_acts {
    mm_act *x;    /* [n,C] the residual stream on entry               */
    mm_act *ln_1; /* [n,C]                                            */
    float *mean_1, *rstd_1;
    mm_act *qkv;       /* [n,3C]                                      */
    mm_act *attention; /* [n,C]                                       */
    float *lse;        /* [B,H,T]                                     */
    /* From here on only the rows that matter: every token, or, in the last
     * block, the pooled ones. */
    mm_act *tail_x;         /* [rows,C] x's rows         */
    mm_act *tail_attention; /* [rows,C] attention's rows */
    mm_act *middle;         /* [rows,C] tail_x + attention output */
    mm_act *ln_2;           /* [rows,C]                  */
    float *mean_2, *rstd_2;
    mm_act *pre; /* [rows,M] before the activation */
    mm_act *act; /* [rows,M]                       */
    mm_act *out; /* [rows,C] next block's x        */
} block_acts;

/** What a block's products read. */
typedef struct block_weights {
    const mm_act *in_proj_weight, *in_proj_bias;
    const mm_act *out_proj_weight, *out_proj_bias;
    const mm_act *c_fc_weight, *c_fc_bias;
    const mm_act *c_proj_weight, *c_proj_bias;
} block_weights;

struct mm_blocks {
    const mm_ops *ops;
    int64_t act_bytes;
    bool sums_with_gradients;
    mm_stream *stream;
    const mm_model_config *config;
    const mm_tower_config *shape;
    mm_tower tower;
    mm_keep keep;
    int64_t max_sequences, max_tokens;
    int64_t n_sequences, n_tokens; /* of the last forward pass; tokens each */
    block_acts *acts;

    /* Gradients of activations, each used again block after block. */
    mm_act *dx;      /* [n,C] of the residual stream   */
    mm_act *dtail;   /* [B,C] of the last block's      */
    mm_act *dbranch; /* [n,C] of what enters it        */
    mm_act *dpre;    /* [rows,M] before the activation */
    mm_act *dattn;   /* [n,C]                          */
    mm_act *dqkv;    /* [n,3C]                         */
};

static bool trains(const mm_blocks *b)
{
    return b->keep != MM_KEEP_NOTHING;
}

/** The gradient of a bias, for the op that makes dy, and for the one that makes
 * the weight's gradient of it: one of them adds it up, the other gets NULL. */
static float *with_dy(const mm_blocks *b, float *dbias)
{
    return b->sums_with_gradients ? dbias : NULL;
}

static float *with_dw(const mm_blocks *b, float *dbias)
{
    return b->sums_with_gradients ? NULL : dbias;
}

static bool is_last(const mm_blocks *b, int64_t layer)
{
    return layer == b->shape->n_layers - 1;
}

/** Rows behind the attention of `layer`. */
static int64_t tail_rows(const mm_blocks *b, int64_t layer)
{
    return is_last(b, layer) ? b->n_sequences : b->n_sequences * b->n_tokens;
}

/* ---- memory ------------------------------------------------------------ */

mm_status mm_blocks_create(mm_device *device, mm_stream *stream,
                           const mm_model_config *config, mm_tower tower,
                           mm_keep keep, int64_t max_sequences,
                           int64_t max_tokens, mm_blocks **blocks)
{
    mm_blocks *b = calloc(1, sizeof *b);
    if (!b)
        return mm_fail(MM_E_MEMORY, "no memory for a model");
    b->ops = mm_device_ops(device);
    b->act_bytes = mm_device_act_bytes(device);
    b->sums_with_gradients = mm_device_sums_with_gradients(device);
    b->stream = stream;
    b->config = config;
    b->tower = tower;
    b->shape = tower == MM_TEXT_TOWER ? &config->text : &config->image;
    b->keep = keep;
    b->max_sequences = max_sequences;
    b->max_tokens = max_tokens;
    b->acts = calloc((size_t)b->shape->n_layers, sizeof *b->acts);
    if (!b->acts) {
        mm_blocks_destroy(&b);
        return mm_fail(MM_E_MEMORY, "no memory for a model");
    }
    *blocks = b;
    return MM_OK;
}

void mm_blocks_destroy(mm_blocks **blocks)
{
    if (!*blocks)
        return;
    free((*blocks)->acts);
    free(*blocks);
    *blocks = NULL;
}

static mm_act *take(const mm_blocks *b, mm_arena *arena, int64_t n_elems)
{
    return (mm_act *)mm_arena_take(arena, n_elems * b->act_bytes);
}

/** Blocks whose activations are not kept share those of block 0; the last
 * block's rows are fewer. */
static void lay_out_block(mm_blocks *b, mm_arena *arena, int64_t layer)
{
    const mm_tower_config *s = b->shape;
    bool last = is_last(b, layer);
    bool own = b->keep == MM_KEEP_ALL || layer == 0;
    int64_t n = b->max_tokens, rows = last ? b->max_sequences : n;
    block_acts *a = &b->acts[layer];
    if (!own)
        *a = b->acts[0];
    if (layer == 0)
        a->x = take(b, arena, n * s->width);
    else if (trains(b))
        a->x = b->acts[layer - 1].out;
    if (own) {
        a->ln_1 = take(b, arena, n * s->width);
        a->qkv = take(b, arena, n * 3 * s->width);
        a->attention = take(b, arena, n * s->width);
        a->ln_2 = take(b, arena, rows * s->width);
        a->act = take(b, arena, rows * s->mlp_width);
    }
    if (own && trains(b)) {
        a->mean_1 = mm_arena_floats(arena, n);
        a->rstd_1 = mm_arena_floats(arena, n);
        a->mean_2 = mm_arena_floats(arena, rows);
        a->rstd_2 = mm_arena_floats(arena, rows);
        a->lse = mm_arena_floats(arena, n * s->n_heads);
        a->pre = take(b, arena, rows * s->mlp_width);
        a->middle = take(b, arena, rows * s->width);
    }
    a->tail_x = last ? take(b, arena, rows * s->width) : a->x;
    a->tail_attention = last ? take(b, arena, rows * s->width) : a->attention;
    if (!trains(b))
        a->middle = a->tail_x;
    a->out = trains(b) ? take(b, arena, rows * s->width) : a->middle;
}

void mm_blocks_lay_out(mm_blocks *blocks, mm_arena *arena)
{
    const mm_tower_config *s = blocks->shape;
    int64_t n = blocks->max_tokens;
    if (trains(blocks)) {
        int64_t most_rows = s->n_layers > 1 ? n : blocks->max_sequences;
        blocks->dx = take(blocks, arena, n * s->width);
        blocks->dtail = take(blocks, arena, blocks->max_sequences * s->width);
        blocks->dbranch = take(blocks, arena, n * s->width);
        blocks->dpre = take(blocks, arena, most_rows * s->mlp_width);
        blocks->dattn = take(blocks, arena, n * s->width);
        blocks->dqkv = take(blocks, arena, n * 3 * s->width);
    }
    for (int64_t layer = 0; layer < s->n_layers; layer++)
        lay_out_block(blocks, arena, layer);
}

mm_blocks_ports mm_blocks_ports_of(const mm_blocks *blocks)
{
    const block_acts *first = &blocks->acts[0];
    return (mm_blocks_ports){
        .x = first->x,
        .spare = first->ln_1,
        .out = blocks->acts[blocks->shape->n_layers - 1].out,
        .dout = blocks->dtail,
        .dx = blocks->dx,
        .dspare = {blocks->dbranch, blocks->dattn},
    };
}

const mm_act *mm_blocks_input(const mm_blocks *blocks, int64_t layer)
{
    MM_ASSERT(trains(blocks) && layer < blocks->shape->n_layers);
    return blocks->acts[layer].x;
}

static block_weights weights_of(const mm_blocks *b, const mm_block_params *p,
                                const float *theta, const mm_act *weights)
{
#define AT(name) \
    .name = mm_low_precision_at(weights, b->act_bytes, theta, p->name)
    return (block_weights){
        AT(in_proj_weight), AT(in_proj_bias), AT(out_proj_weight),
        AT(out_proj_bias),  AT(c_fc_weight),  AT(c_fc_bias),
        AT(c_proj_weight),  AT(c_proj_bias),
    };
#undef AT
}

/* ---- forward ----------------------------------------------------------- */

/** The pooled tokens' rows of x and of what attention gave. */
static mm_status pool(const mm_blocks *b, const block_acts *a,
                      const int64_t *pooled)
{
    const mm_ops *ops = b->ops;
    int64_t n = b->n_sequences, w = b->shape->width, apart = b->n_tokens * w;
    mm_stream *s = b->stream;
    if (pooled) {
        MM_TRY(ops->gather_rows(s, a->tail_x, a->x, pooled, n, w));
        return ops->gather_rows(s, a->tail_attention, a->attention, pooled, n,
                                w);
    }
    MM_TRY(ops->copy_rows(s, a->tail_x, w, a->x, apart, n, w));
    return ops->copy_rows(s, a->tail_attention, w, a->attention, apart, n, w);
}

/** All of a block except its output. */
static mm_status compute_block(mm_blocks *b, int64_t layer,
                               const mm_block_params *p,
                               const block_weights *of, const int64_t *pooled)
{
    const mm_tower_config *c = b->shape;
    const mm_ops *ops = b->ops;
    const block_acts *a = &b->acts[layer];
    int64_t w = c->width, m = c->mlp_width;
    int64_t n = b->n_sequences * b->n_tokens, rows = tail_rows(b, layer);
    mm_stream *s = b->stream;
    MM_TRY(ops->layernorm(s, a->ln_1, a->mean_1, a->rstd_1, a->x, w,
                          p->ln_1_weight, p->ln_1_bias, mm_norm_eps, n, w));
    MM_TRY(ops->linear(s, a->qkv, a->ln_1, of->in_proj_weight, of->in_proj_bias,
                       NULL, n, w, 3 * w));
    MM_TRY(ops->attention(s, a->attention, a->lse, a->qkv, c->causal,
                          b->n_sequences, b->n_tokens, w, c->n_heads));
    if (is_last(b, layer))
        MM_TRY(pool(b, a, pooled));
    MM_TRY(ops->linear(s, a->middle, a->tail_attention, of->out_proj_weight,
                       of->out_proj_bias, a->tail_x, rows, w, w));
    MM_TRY(ops->layernorm(s, a->ln_2, a->mean_2, a->rstd_2, a->middle, w,
                          p->ln_2_weight, p->ln_2_bias, mm_norm_eps, rows, w));
    return ops->linear_act(s, a->act, a->pre, a->ln_2, of->c_fc_weight,
                           of->c_fc_bias, c->activation, rows, w, m);
}

static mm_status forward_block(mm_blocks *b, int64_t layer,
                               const mm_block_params *p,
                               const block_weights *of, const int64_t *pooled)
{
    const block_acts *a = &b->acts[layer];
    MM_TRY(compute_block(b, layer, p, of, pooled));
    return b->ops->linear(b->stream, a->out, a->act, of->c_proj_weight,
                          of->c_proj_bias, a->middle, tail_rows(b, layer),
                          b->shape->mlp_width, b->shape->width);
}

mm_status mm_blocks_forward(mm_blocks *blocks, const float *theta,
                            const mm_act *weights, const int64_t *pooled,
                            int64_t n_sequences, int64_t n_tokens)
{
    MM_ASSERT(n_sequences >= 0 && n_sequences <= blocks->max_sequences);
    MM_ASSERT(n_sequences * n_tokens <= blocks->max_tokens);
    blocks->n_sequences = n_sequences;
    blocks->n_tokens = n_tokens;
    for (int64_t layer = 0; layer < blocks->shape->n_layers; layer++) {
        /* Weights and gradients share one struct of pointers; weights are only
         * read. */
        mm_block_params p = mm_params_block(blocks->config, blocks->tower,
                                            layer, (float *)theta);
        block_weights of = weights_of(blocks, &p, theta, weights);
        MM_TRY(forward_block(blocks, layer, &p, &of, pooled));
    }
    return MM_OK;
}

/* ---- backward ---------------------------------------------------------- */

/** The MLP half and the attention's output projection. dx: gradient of the
 * block's rows, in and out; dattn: of what attention gave for those rows. */
static mm_status backward_tail(mm_blocks *b, int64_t layer,
                               const mm_block_params *p,
                               const block_weights *of,
                               const mm_block_params *d, mm_act *dx,
                               mm_act *dattn, bool accumulate)
{
    const mm_tower_config *c = b->shape;
    const mm_ops *ops = b->ops;
    const block_acts *a = &b->acts[layer];
    int64_t w = c->width, m = c->mlp_width, rows = tail_rows(b, layer);
    mm_stream *s = b->stream;
    mm_act *dpre = b->dpre;
    MM_TRY(ops->linear_grad_weight(s, d->c_proj_weight,
                                   with_dw(b, d->c_proj_bias), dx, a->act,
                                   accumulate, rows, m, w));
    MM_TRY(ops->linear_grad_act(s, dpre, with_dy(b, d->c_fc_bias), dx,
                                of->c_proj_weight, a->pre, c->activation,
                                accumulate, rows, m, w));
    MM_TRY(ops->linear_grad_weight(s, d->c_fc_weight, with_dw(b, d->c_fc_bias),
                                   dpre, a->ln_2, accumulate, rows, w, m));
    MM_TRY(ops->linear_grad_input(s, b->dbranch, dpre, of->c_fc_weight, rows, w,
                                  m));
    MM_TRY(ops->layernorm_grad(s, dx, d->ln_2_weight, d->ln_2_bias,
                               with_dy(b, d->out_proj_bias), dx, b->dbranch,
                               a->middle, w, a->mean_2, a->rstd_2,
                               p->ln_2_weight, accumulate, rows, w));
    MM_TRY(ops->linear_grad_weight(s, d->out_proj_weight,
                                   with_dw(b, d->out_proj_bias), dx,
                                   a->tail_attention, accumulate, rows, w, w));
    return ops->linear_grad_input(s, dattn, dx, of->out_proj_weight, rows, w,
                                  w);
}

float *mm_blocks_exit_bias_grad(const mm_blocks *blocks, float *grad,
                                int64_t layer)
{
    mm_block_params d =
        mm_params_block(blocks->config, blocks->tower, layer, grad);
    return with_dy(blocks, d.c_proj_bias);
}

mm_status mm_blocks_backward(mm_blocks *blocks, const float *theta,
                             const mm_act *weights, float *grad, int64_t layer,
                             bool accumulate)
{
    mm_blocks *b = blocks;
    MM_ASSERT(trains(b));
    const mm_tower_config *c = b->shape;
    const mm_ops *ops = b->ops;
    const block_acts *a = &b->acts[layer];
    int64_t t = b->n_tokens, w = c->width, n = b->n_sequences * t;
    mm_stream *s = b->stream;
    mm_block_params p =
        mm_params_block(b->config, b->tower, layer, (float *)theta);
    block_weights of = weights_of(b, &p, theta, weights);
    mm_block_params d = mm_params_block(b->config, b->tower, layer, grad);
    if (b->keep == MM_KEEP_INPUTS && !is_last(b, layer))
        MM_TRY(compute_block(b, layer, &p, &of, NULL));
    if (is_last(b, layer)) {
        /* Rows that are not pooled have no gradient from above. */
        mm_act *dattn_rows = b->dqkv;
        MM_TRY(backward_tail(b, layer, &p, &of, &d, b->dtail, dattn_rows,
                             accumulate));
        MM_TRY(ops->fill_act(s, b->dx, 0, n * w));
        MM_TRY(ops->fill_act(s, b->dattn, 0, n * w));
        MM_TRY(ops->copy_rows(s, b->dx, t * w, b->dtail, w, b->n_sequences, w));
        MM_TRY(ops->copy_rows(s, b->dattn, t * w, dattn_rows, w, b->n_sequences,
                              w));
    } else {
        MM_TRY(
            backward_tail(b, layer, &p, &of, &d, b->dx, b->dattn, accumulate));
    }
    MM_TRY(ops->attention_grad(s, b->dqkv, with_dy(b, d.in_proj_bias), b->dattn,
                               a->attention, a->lse, a->qkv, c->causal,
                               accumulate, b->n_sequences, t, w, c->n_heads));
    MM_TRY(ops->linear_grad_weight(s, d.in_proj_weight,
                                   with_dw(b, d.in_proj_bias), b->dqkv, a->ln_1,
                                   accumulate, n, w, 3 * w));
    MM_TRY(ops->linear_grad_input(s, b->dbranch, b->dqkv, of.in_proj_weight, n,
                                  w, 3 * w));
    float *below =
        layer > 0 ? mm_blocks_exit_bias_grad(b, grad, layer - 1) : NULL;
    return ops->layernorm_grad(s, b->dx, d.ln_1_weight, d.ln_1_bias, below,
                               b->dx, b->dbranch, a->x, w, a->mean_1, a->rstd_1,
                               p.ln_1_weight, accumulate, n, w);
}

double mm_blocks_flop(const mm_tower_config *tower, int64_t n_tokens)
{
    double t = (double)n_tokens, w = (double)tower->width;
    double per_token = 4 * w * w + 2 * w * (double)tower->mlp_width;
    double attention = 2 * t * t * w;
    return 2 * (double)tower->n_layers * (t * per_token + attention);
}
