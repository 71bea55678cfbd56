/* CLIP's text tower, forward only: embedding, residual blocks, pooling and
 * projection. */

#include "src/model/text.h"

#include "src/base/arena.h"
#include "src/model/blocks.h"

#include <stdlib.h>

struct mm_text {
    mm_device *device;
    mm_stream *stream;
    const mm_ops *ops;
    const mm_model_config *config;
    int64_t max_tokens;
    void *memory;

    mm_blocks *blocks;
    mm_blocks_ports ports;
    mm_act *normed;  /* [B,C] after ln_final */
    float *pooled;   /* the same in fp32     */
    float *features; /* [B,E] */
};

/** Runs twice: over an empty arena to count, then over the memory. */
static void lay_out(mm_text *t, mm_arena *arena)
{
    const mm_model_config *c = t->config;
    mm_blocks_lay_out(t->blocks, arena);
    t->ports = mm_blocks_ports_of(t->blocks);
    t->normed = mm_arena_take(arena, t->max_tokens * c->text.width *
                                         mm_device_act_bytes(t->device));
    t->pooled = mm_arena_floats(arena, t->max_tokens * c->text.width);
    t->features = mm_arena_floats(arena, t->max_tokens * c->embed_dim);
}

mm_status mm_text_create(mm_device *device, mm_stream *stream,
                         const mm_model_config *config, int64_t max_tokens,
                         mm_text **text)
{
    MM_ASSERT(config->has_text);
    const mm_tower_config *c = &config->text;
    mm_text *t = calloc(1, sizeof *t);
    if (!t)
        return mm_fail(MM_E_MEMORY, "no memory for a model");
    t->device = device;
    t->stream = stream;
    t->ops = mm_device_ops(device);
    t->config = config;
    t->max_tokens = max_tokens;
    mm_status st;
    MM_TRY_GOTO(st, fail,
                mm_blocks_create(device, stream, config, MM_TEXT_TOWER,
                                 MM_KEEP_NOTHING, max_tokens, max_tokens,
                                 &t->blocks));
    mm_arena arena = {0};
    lay_out(t, &arena);
    MM_TRY_GOTO(st, fail, mm_device_alloc(device, arena.used, &t->memory));
    arena = (mm_arena){.base = t->memory};
    lay_out(t, &arena);

    int64_t scratch;
    MM_TRY_GOTO(
        st, fail,
        t->ops->scratch_bytes(&scratch, c->n_tokens, c->width, c->n_heads));
    MM_TRY_GOTO(st, fail, mm_stream_reserve(stream, scratch));
    *text = t;
    return MM_OK;
fail:
    mm_text_destroy(&t);
    return st;
}

void mm_text_destroy(mm_text **text)
{
    mm_text *t = *text;
    if (!t)
        return;
    mm_device_free(t->device, &t->memory);
    mm_blocks_destroy(&t->blocks);
    free(t);
    *text = NULL;
}

mm_status mm_text_forward(mm_text *text, const float *theta,
                          const mm_act *weights, const int32_t *tokens,
                          const int64_t *ends, int64_t n_texts,
                          int64_t n_tokens, float **features)
{
    const mm_model_config *c = text->config;
    const mm_ops *ops = text->ops;
    int64_t w = c->text.width;
    MM_ASSERT(n_tokens <= c->text.n_tokens);
    MM_ASSERT(n_texts * n_tokens <= text->max_tokens);
    /* The struct of pointers is for gradients too; weights are only read. */
    mm_text_params p = mm_params_text(c, (float *)theta);
    MM_TRY(ops->embed_text(text->stream, text->ports.x, tokens,
                           p.token_embedding, p.positional_embedding, n_texts,
                           n_tokens, w));
    MM_TRY(mm_blocks_forward(text->blocks, theta, weights, ends, n_texts,
                             n_tokens));
    MM_TRY(ops->layernorm(text->stream, text->normed, NULL, NULL,
                          text->ports.out, w, p.ln_final_weight,
                          p.ln_final_bias, mm_norm_eps, n_texts, w));
    /* One row per text: from here on fp32. */
    MM_TRY(ops->act_to_float(text->stream, text->pooled, text->normed,
                             n_texts * w));
    MM_TRY(ops->gemm(text->stream, text->features, text->pooled,
                     p.text_projection, false, false, n_texts, c->embed_dim, w,
                     0));
    *features = text->features;
    return MM_OK;
}

double mm_text_forward_flop(const mm_model_config *config, int64_t n_tokens)
{
    const mm_tower_config *c = &config->text;
    double w = (double)c->width, m = (double)c->mlp_width;
    double unpooled = (double)(n_tokens - 1); /* leave the last block early */
    return mm_blocks_flop(c, n_tokens) - 2 * unpooled * (w * w + 2 * w * m) +
           2 * w * (double)config->embed_dim;
}
