#include "src/model/vit.h"

#include "src/base/arena.h"

#include <stdlib.h>

/* CLIP's normalisation (Radford et al. 2021, published with the code). */
const float mm_pixel_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
const float mm_pixel_deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};

static const float norm_eps = 1e-5f;

/** What one block computes, in order. In inference all blocks share one set and
 * `x`, `middle` and the next block's `x` are one buffer. */
typedef struct block_acts {
    float *x;    /* [B,T,C] the residual stream on entry             */
    float *ln_1; /* [B,T,C]                                          */
    float *mean_1, *rstd_1;
    float *qkv;       /* [B,T,3C]                                    */
    float *attention; /* [B,T,C]                                     */
    float *lse;       /* [B,H,T]                                     */
    /* From here on only the rows that matter: every token, or, in the last
     * block, the class tokens. */
    float *tail_x;         /* [rows,C] x's rows         */
    float *tail_attention; /* [rows,C] attention's rows */
    float *middle;         /* [rows,C] tail_x + attention output */
    float *ln_2;           /* [rows,C]                  */
    float *mean_2, *rstd_2;
    float *pre; /* [rows,M] before the activation */
    float *act; /* [rows,M]                       */
    float *out; /* [rows,C] next block's x        */
} block_acts;

struct mm_vit {
    mm_device *device;
    mm_stream *stream;
    const mm_ops *ops;
    const mm_model_config *config;
    mm_vit_use use;
    int64_t max_images;
    int64_t n_images; /* of the last forward pass */
    void *memory;
    int64_t n_bytes;

    float *columns;  /* [B, T-1, 3PP] */
    float *embedded; /* [B,T,C] before ln_pre */
    float *pre_mean, *pre_rstd;
    block_acts *blocks;
    float *post_mean, *post_rstd;
    float *pooled;   /* [B,C] */
    float *features; /* [B,E] */

    /* Gradients of activations, each used again block after block. */
    float *dx;      /* [B,T,C] of the residual stream */
    float *dtail;   /* [B,C] of the last block's      */
    float *dbranch; /* [B,T,C] of what enters it      */
    float *dpre;    /* [rows,M] before the activation */
    float *dattn;   /* [B,T,C]                        */
    float *dqkv;    /* [B,T,3C]                       */
};

static int64_t patch_elems(const mm_model_config *c)
{
    return 3 * c->patch_size * c->patch_size;
}

static bool is_last(const mm_model_config *c, int64_t layer)
{
    return layer == c->image.n_layers - 1;
}

static int64_t tail_rows(const mm_vit *vit, int64_t layer, int64_t n_images)
{
    return is_last(vit->config, layer) ? n_images
                                       : n_images * vit->config->image.n_tokens;
}

/* ---- memory ------------------------------------------------------------ */

static void plan_block(mm_vit *vit, mm_arena *arena, int64_t layer)
{
    const mm_model_config *c = vit->config;
    bool training = vit->use == MM_VIT_TRAINING;
    bool last = is_last(c, layer);
    int64_t n = vit->max_images * c->image.n_tokens;
    int64_t rows = tail_rows(vit, layer, vit->max_images);
    block_acts *b = &vit->blocks[layer];
    if (!training && layer > 0 && !last) {
        *b = vit->blocks[0];
        return;
    }
    if (training || layer == 0) {
        b->x = layer > 0 ? vit->blocks[layer - 1].out
                         : mm_arena_floats(arena, n * c->image.width);
        b->ln_1 = mm_arena_floats(arena, n * c->image.width);
        b->qkv = mm_arena_floats(arena, n * 3 * c->image.width);
        b->attention = mm_arena_floats(arena, n * c->image.width);
    } else {
        *b = vit->blocks[0]; /* but for its tail, which is smaller */
    }
    if (training) {
        b->mean_1 = mm_arena_floats(arena, n);
        b->rstd_1 = mm_arena_floats(arena, n);
        b->mean_2 = mm_arena_floats(arena, rows);
        b->rstd_2 = mm_arena_floats(arena, rows);
        b->lse = mm_arena_floats(arena, n * c->image.n_heads);
        b->pre = mm_arena_floats(arena, rows * c->image.mlp_width);
    }
    b->tail_x = last ? mm_arena_floats(arena, rows * c->image.width) : b->x;
    b->tail_attention =
        last ? mm_arena_floats(arena, rows * c->image.width) : b->attention;
    b->middle =
        training ? mm_arena_floats(arena, rows * c->image.width) : b->tail_x;
    b->ln_2 = mm_arena_floats(arena, rows * c->image.width);
    b->act = mm_arena_floats(arena, rows * c->image.mlp_width);
    b->out =
        training ? mm_arena_floats(arena, rows * c->image.width) : b->middle;
}

/** Runs twice: over an empty arena to count, then over the memory. */
static void plan(mm_vit *vit, mm_arena *arena)
{
    const mm_model_config *c = vit->config;
    int64_t b = vit->max_images, n = b * c->image.n_tokens;
    bool training = vit->use == MM_VIT_TRAINING;
    vit->columns =
        mm_arena_floats(arena, b * (c->image.n_tokens - 1) * patch_elems(c));
    vit->embedded = mm_arena_floats(arena, n * c->image.width);
    if (training) {
        vit->pre_mean = mm_arena_floats(arena, n);
        vit->pre_rstd = mm_arena_floats(arena, n);
        vit->post_mean = mm_arena_floats(arena, b);
        vit->post_rstd = mm_arena_floats(arena, b);
        vit->dx = mm_arena_floats(arena, n * c->image.width);
        vit->dtail = mm_arena_floats(arena, b * c->image.width);
        vit->dbranch = mm_arena_floats(arena, n * c->image.width);
        int64_t most_rows = c->image.n_layers > 1 ? n : b;
        vit->dpre = mm_arena_floats(arena, most_rows * c->image.mlp_width);
        vit->dattn = mm_arena_floats(arena, n * c->image.width);
        vit->dqkv = mm_arena_floats(arena, n * 3 * c->image.width);
    }
    for (int64_t layer = 0; layer < c->image.n_layers; layer++)
        plan_block(vit, arena, layer);
    vit->pooled = mm_arena_floats(arena, b * c->image.width);
    vit->features = mm_arena_floats(arena, b * c->embed_dim);
}

mm_status mm_vit_create(mm_device *device, mm_stream *stream,
                        const mm_model_config *config, mm_vit_use use,
                        int64_t max_images, mm_vit **vit)
{
    mm_vit *v = calloc(1, sizeof *v);
    if (!v)
        return mm_fail(MM_E_MEMORY, "no memory for a model");
    v->device = device;
    v->stream = stream;
    v->ops = mm_device_ops(device);
    v->config = config;
    v->use = use;
    v->max_images = max_images;
    mm_status st = mm_fail(MM_E_MEMORY, "no memory for a model");
    v->blocks = calloc((size_t)config->image.n_layers, sizeof *v->blocks);
    if (!v->blocks)
        goto fail;

    mm_arena arena = {0};
    plan(v, &arena);
    v->n_bytes = arena.used;
    MM_TRY_GOTO(st, fail, mm_device_alloc(device, v->n_bytes, &v->memory));
    arena = (mm_arena){.base = v->memory};
    plan(v, &arena);

    int64_t scratch;
    MM_TRY_GOTO(st, fail,
                v->ops->scratch_bytes(&scratch, config->image.n_tokens,
                                      config->image.width,
                                      config->image.n_heads));
    MM_TRY_GOTO(st, fail, mm_stream_reserve(stream, scratch));
    *vit = v;
    return MM_OK;
fail:
    mm_vit_destroy(&v);
    return st;
}

void mm_vit_destroy(mm_vit **vit)
{
    mm_vit *v = *vit;
    if (!v)
        return;
    mm_device_release(v->device, &v->memory);
    free(v->blocks);
    free(v);
    *vit = NULL;
}

int64_t mm_vit_n_bytes(const mm_vit *vit)
{
    return vit->n_bytes;
}

/* ---- forward ----------------------------------------------------------- */

static mm_status embed(mm_vit *v, const mm_vit_params *p, const uint8_t *images)
{
    const mm_model_config *c = v->config;
    const mm_ops *ops = v->ops;
    int64_t b = v->n_images, t = c->image.n_tokens, w = c->image.width;
    float *patches = v->blocks[0].ln_1; /* free until block 0 writes it */
    MM_TRY(ops->patchify(v->stream, v->columns, images, b, c->image_size,
                         c->patch_size, mm_pixel_mean, mm_pixel_deviation));
    MM_TRY(ops->linear(v->stream, patches, v->columns, p->conv1_weight, NULL,
                       NULL, b * (t - 1), patch_elems(c), w));
    MM_TRY(ops->embed_tokens(v->stream, v->embedded, patches,
                             p->class_embedding, p->positional_embedding, b, t,
                             w));
    return ops->layernorm(v->stream, v->blocks[0].x, v->pre_mean, v->pre_rstd,
                          v->embedded, w, p->ln_pre_weight, p->ln_pre_bias,
                          norm_eps, b * t, w);
}

static mm_status forward_block(mm_vit *v, int64_t layer,
                               const mm_block_params *p)
{
    const mm_model_config *c = v->config;
    const mm_ops *ops = v->ops;
    const block_acts *a = &v->blocks[layer];
    int64_t b = v->n_images, t = c->image.n_tokens, w = c->image.width,
            m = c->image.mlp_width;
    int64_t n = b * t, rows = tail_rows(v, layer, b);
    mm_stream *s = v->stream;
    MM_TRY(ops->layernorm(s, a->ln_1, a->mean_1, a->rstd_1, a->x, w,
                          p->ln_1_weight, p->ln_1_bias, norm_eps, n, w));
    MM_TRY(ops->linear(s, a->qkv, a->ln_1, p->in_proj_weight, p->in_proj_bias,
                       NULL, n, w, 3 * w));
    MM_TRY(ops->attention(s, a->attention, a->lse, a->qkv, false, b, t, w,
                          c->image.n_heads));
    if (is_last(c, layer)) {
        MM_TRY(ops->copy_rows(s, a->tail_x, w, a->x, t * w, rows, w));
        MM_TRY(ops->copy_rows(s, a->tail_attention, w, a->attention, t * w,
                              rows, w));
    }
    MM_TRY(ops->linear(s, a->middle, a->tail_attention, p->out_proj_weight,
                       p->out_proj_bias, a->tail_x, rows, w, w));
    MM_TRY(ops->layernorm(s, a->ln_2, a->mean_2, a->rstd_2, a->middle, w,
                          p->ln_2_weight, p->ln_2_bias, norm_eps, rows, w));
    MM_TRY(ops->linear_act(s, a->act, a->pre, a->ln_2, p->c_fc_weight,
                           p->c_fc_bias, c->image.activation, rows, w, m));
    return ops->linear(s, a->out, a->act, p->c_proj_weight, p->c_proj_bias,
                       a->middle, rows, m, w);
}

mm_status mm_vit_forward(mm_vit *vit, const float *theta, const uint8_t *images,
                         int64_t n_images, float **features)
{
    MM_ASSERT(n_images >= 0 && n_images <= vit->max_images);
    const mm_model_config *c = vit->config;
    const mm_ops *ops = vit->ops;
    /* Weights and gradients share one struct of pointers; weights are only
     * read. */
    float *flat = (float *)theta;
    mm_vit_params p = mm_params_vit(c, flat);
    vit->n_images = n_images;
    MM_TRY(embed(vit, &p, images));
    for (int64_t layer = 0; layer < c->image.n_layers; layer++) {
        mm_block_params block = mm_params_block(c, MM_IMAGE_TOWER, layer, flat);
        MM_TRY(forward_block(vit, layer, &block));
    }
    MM_TRY(ops->layernorm(
        vit->stream, vit->pooled, vit->post_mean, vit->post_rstd,
        vit->blocks[c->image.n_layers - 1].out, c->image.width,
        p.ln_post_weight, p.ln_post_bias, norm_eps, n_images, c->image.width));
    MM_TRY(ops->gemm(vit->stream, vit->features, vit->pooled, p.proj, false,
                     false, n_images, c->embed_dim, c->image.width, 0));
    *features = vit->features;
    return MM_OK;
}

/* ---- backward ---------------------------------------------------------- */

static mm_status tell(const mm_grad_listener *listener,
                      const mm_model_config *c, int64_t layer, float *grad)
{
    if (!listener)
        return MM_OK;
    int64_t lo, hi;
    mm_params_range(c, layer, &lo, &hi);
    return listener->ready(listener->context, grad, lo, hi);
}

/** The MLP half and the attention's output projection. dx: gradient of the
 * block's rows, in and out; dattn: of what attention gave for those rows. */
static mm_status backward_tail(mm_vit *v, int64_t layer,
                               const mm_block_params *p,
                               const mm_block_params *d, float *dx,
                               float *dattn, bool accumulate)
{
    const mm_model_config *c = v->config;
    const mm_ops *ops = v->ops;
    const block_acts *a = &v->blocks[layer];
    int64_t w = c->image.width, m = c->image.mlp_width;
    int64_t rows = tail_rows(v, layer, v->n_images);
    mm_stream *s = v->stream;
    float *dpre = v->dpre;
    MM_TRY(ops->linear_grad_weight(s, d->c_proj_weight, d->c_proj_bias, dx,
                                   a->act, accumulate, rows, m, w));
    MM_TRY(ops->linear_grad_act(s, dpre, dx, p->c_proj_weight, a->pre,
                                c->image.activation, rows, m, w));
    MM_TRY(ops->linear_grad_weight(s, d->c_fc_weight, d->c_fc_bias, dpre,
                                   a->ln_2, accumulate, rows, w, m));
    MM_TRY(ops->linear_grad_input(s, v->dbranch, dpre, p->c_fc_weight, rows, w,
                                  m));
    MM_TRY(ops->layernorm_grad(s, dx, d->ln_2_weight, d->ln_2_bias, dx,
                               v->dbranch, a->middle, w, a->mean_2, a->rstd_2,
                               p->ln_2_weight, accumulate, rows, w));
    MM_TRY(ops->linear_grad_weight(s, d->out_proj_weight, d->out_proj_bias, dx,
                                   a->tail_attention, accumulate, rows, w, w));
    return ops->linear_grad_input(s, dattn, dx, p->out_proj_weight, rows, w, w);
}

static mm_status backward_block(mm_vit *v, int64_t layer,
                                const mm_block_params *p,
                                const mm_block_params *d, bool accumulate)
{
    const mm_model_config *c = v->config;
    const mm_ops *ops = v->ops;
    const block_acts *a = &v->blocks[layer];
    int64_t b = v->n_images, t = c->image.n_tokens, w = c->image.width,
            n = b * t;
    mm_stream *s = v->stream;
    if (is_last(c, layer)) {
        /* Rows that are not class tokens get nothing from behind. */
        float *dattn_rows = v->dqkv;
        MM_TRY(backward_tail(v, layer, p, d, v->dtail, dattn_rows, accumulate));
        MM_TRY(ops->fill(s, v->dx, 0, n * w));
        MM_TRY(ops->fill(s, v->dattn, 0, n * w));
        MM_TRY(ops->copy_rows(s, v->dx, t * w, v->dtail, w, b, w));
        MM_TRY(ops->copy_rows(s, v->dattn, t * w, dattn_rows, w, b, w));
    } else {
        MM_TRY(backward_tail(v, layer, p, d, v->dx, v->dattn, accumulate));
    }
    MM_TRY(ops->attention_grad(s, v->dqkv, v->dattn, a->attention, a->lse,
                               a->qkv, false, b, t, w, c->image.n_heads));
    MM_TRY(ops->linear_grad_weight(s, d->in_proj_weight, d->in_proj_bias,
                                   v->dqkv, a->ln_1, accumulate, n, w, 3 * w));
    MM_TRY(ops->linear_grad_input(s, v->dbranch, v->dqkv, p->in_proj_weight, n,
                                  w, 3 * w));
    return ops->layernorm_grad(s, v->dx, d->ln_1_weight, d->ln_1_bias, v->dx,
                               v->dbranch, a->x, w, a->mean_1, a->rstd_1,
                               p->ln_1_weight, accumulate, n, w);
}

static mm_status backward_embed(mm_vit *v, const mm_vit_params *p,
                                const mm_vit_params *d, bool accumulate)
{
    const mm_model_config *c = v->config;
    const mm_ops *ops = v->ops;
    int64_t b = v->n_images, t = c->image.n_tokens, w = c->image.width;
    mm_stream *s = v->stream;
    float *dembedded = v->dbranch, *dpatches = v->dattn;
    MM_TRY(ops->layernorm_grad(s, dembedded, d->ln_pre_weight, d->ln_pre_bias,
                               NULL, v->dx, v->embedded, w, v->pre_mean,
                               v->pre_rstd, p->ln_pre_weight, accumulate, b * t,
                               w));
    MM_TRY(ops->embed_tokens_grad(s, dpatches, d->class_embedding,
                                  d->positional_embedding, dembedded,
                                  accumulate, b, t, w));
    return ops->linear_grad_weight(s, d->conv1_weight, NULL, dpatches,
                                   v->columns, accumulate, b * (t - 1),
                                   patch_elems(c), w);
}

mm_status mm_vit_backward(mm_vit *vit, const float *theta, float *grad,
                          const float *dfeatures, bool accumulate,
                          const mm_grad_listener *listener)
{
    MM_ASSERT(vit->use == MM_VIT_TRAINING);
    const mm_model_config *c = vit->config;
    const mm_ops *ops = vit->ops;
    int64_t b = vit->n_images, w = c->image.width;
    mm_stream *s = vit->stream;
    float *flat = (float *)theta;
    mm_vit_params p = mm_params_vit(c, flat), d = mm_params_vit(c, grad);

    float *dpooled = vit->dbranch;
    MM_TRY(ops->gemm(s, d.proj, vit->pooled, dfeatures, true, false, w,
                     c->embed_dim, b, accumulate));
    MM_TRY(ops->gemm(s, dpooled, dfeatures, p.proj, false, true, b, w,
                     c->embed_dim, 0));
    MM_TRY(ops->layernorm_grad(
        s, vit->dtail, d.ln_post_weight, d.ln_post_bias, NULL, dpooled,
        vit->blocks[c->image.n_layers - 1].out, w, vit->post_mean,
        vit->post_rstd, p.ln_post_weight, accumulate, b, w));
    for (int64_t layer = c->image.n_layers - 1; layer >= 0; layer--) {
        mm_block_params block = mm_params_block(c, MM_IMAGE_TOWER, layer, flat);
        mm_block_params dblock =
            mm_params_block(c, MM_IMAGE_TOWER, layer, grad);
        MM_TRY(backward_block(vit, layer, &block, &dblock, accumulate));
        MM_TRY(tell(listener, c, layer, grad));
    }
    MM_TRY(backward_embed(vit, &p, &d, accumulate));
    return tell(listener, c, -1, grad);
}

/* ---- inspection -------------------------------------------------------- */

mm_status mm_vit_copy_activation(mm_vit *vit, int64_t layer, float *host)
{
    const mm_model_config *c = vit->config;
    MM_ASSERT(vit->use == MM_VIT_TRAINING && layer < c->image.n_layers);
    const float *x = layer < 0 ? vit->blocks[0].x : vit->blocks[layer].out;
    int64_t rows = layer < 0 ? vit->n_images * c->image.n_tokens
                             : tail_rows(vit, layer, vit->n_images);
    MM_TRY(mm_copy_to_host(vit->stream, host, x,
                           rows * c->image.width * (int64_t)sizeof *host));
    return mm_stream_sync(vit->stream);
}

double mm_vit_forward_flop(const mm_model_config *config)
{
    double t = (double)config->image.n_tokens, w = (double)config->image.width;
    double a_token = 4 * w * w + 2 * w * (double)config->image.mlp_width;
    double attention = 2 * t * t * w;
    double blocks = (double)config->image.n_layers * (t * a_token + attention);
    double patches = (t - 1) * (double)patch_elems(config) * w;
    return 2 * (blocks + patches + w * (double)config->embed_dim);
}
