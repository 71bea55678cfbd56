/* CLIP's image tower, forward and backward: embedding of patches, residual
 * blocks, pooling and projection. */

#include "src/model/vit.h"

#include "src/base/arena.h"
#include "src/model/blocks.h"
#include "src/model/low_precision.h"

#include <stdlib.h>

/* CLIP's normalisation (Radford et al. 2021, published with the code). */
const float mm_pixel_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
const float mm_pixel_deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};

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

    mm_blocks *blocks;
    mm_blocks_ports ports;
    mm_act *columns;  /* [B, T-1, 3PP] */
    mm_act *embedded; /* [B,T,C] before ln_pre */
    float *pre_mean, *pre_rstd;
    float *post_mean, *post_rstd;
    mm_act *normed; /* [B,C] after ln_post */
    float *pooled;  /* the same in fp32 */
    float *dpooled;
    float *features; /* [B,E] */
};

static int64_t patch_elems(const mm_model_config *c)
{
    return 3 * c->patch_size * c->patch_size;
}

/* ---- memory ------------------------------------------------------------ */

/** Runs twice: over an empty arena to count, then over the memory. */
static void lay_out(mm_vit *vit, mm_arena *arena)
{
    const mm_model_config *c = vit->config;
    int64_t b = vit->max_images, t = c->image.n_tokens, w = c->image.width;
    int64_t act_bytes = mm_device_act_bytes(vit->device);
    vit->columns =
        mm_arena_take(arena, b * (t - 1) * patch_elems(c) * act_bytes);
    vit->embedded = mm_arena_take(arena, b * t * w * act_bytes);
    if (vit->use != MM_VIT_INFERENCE) {
        vit->pre_mean = mm_arena_floats(arena, b * t);
        vit->pre_rstd = mm_arena_floats(arena, b * t);
        vit->post_mean = mm_arena_floats(arena, b);
        vit->post_rstd = mm_arena_floats(arena, b);
        vit->dpooled = mm_arena_floats(arena, b * w);
    }
    mm_blocks_lay_out(vit->blocks, arena);
    vit->ports = mm_blocks_ports_of(vit->blocks);
    vit->normed = mm_arena_take(arena, b * w * act_bytes);
    vit->pooled = mm_arena_floats(arena, b * w);
    vit->features = mm_arena_floats(arena, b * c->embed_dim);
}

/** All but memory and scratch. */
static mm_status plan(mm_vit *v, mm_device *device, mm_stream *stream,
                      const mm_model_config *config, mm_vit_use use,
                      int64_t max_images)
{
    static const mm_keep keep[] = {
        [MM_VIT_INFERENCE] = MM_KEEP_NOTHING,
        [MM_VIT_TRAINING] = MM_KEEP_ALL,
        [MM_VIT_RECOMPUTING] = MM_KEEP_INPUTS,
    };
    v->device = device;
    v->stream = stream;
    v->ops = mm_device_ops(device);
    v->config = config;
    v->use = use;
    v->max_images = max_images;
    MM_TRY(mm_blocks_create(device, stream, config, MM_IMAGE_TOWER, keep[use],
                            max_images, max_images * config->image.n_tokens,
                            &v->blocks));
    mm_arena arena = {0};
    lay_out(v, &arena);
    v->n_bytes = arena.used;
    return MM_OK;
}

mm_status mm_vit_count_bytes(mm_device *device, const mm_model_config *config,
                             mm_vit_use use, int64_t max_images,
                             int64_t *n_bytes)
{
    mm_vit v = {0};
    MM_TRY(plan(&v, device, NULL, config, use, max_images));
    mm_blocks_destroy(&v.blocks);
    *n_bytes = v.n_bytes;
    return MM_OK;
}

mm_status mm_vit_create(mm_device *device, mm_stream *stream,
                        const mm_model_config *config, mm_vit_use use,
                        int64_t max_images, mm_vit **vit)
{
    mm_vit *v = calloc(1, sizeof *v);
    if (!v)
        return mm_fail(MM_E_MEMORY, "no memory for a model");
    mm_status st;
    MM_TRY_GOTO(st, fail, plan(v, device, stream, config, use, max_images));
    MM_TRY_GOTO(st, fail, mm_device_alloc(device, v->n_bytes, &v->memory));
    mm_arena arena = {.base = v->memory};
    lay_out(v, &arena);

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
    mm_device_free(v->device, &v->memory);
    mm_blocks_destroy(&v->blocks);
    free(v);
    *vit = NULL;
}

int64_t mm_vit_n_bytes(const mm_vit *vit)
{
    return vit->n_bytes;
}

/* ---- forward ----------------------------------------------------------- */

static mm_status embed(mm_vit *v, const mm_vit_params *p,
                       const mm_act *conv1_weight, const uint8_t *images)
{
    const mm_model_config *c = v->config;
    const mm_ops *ops = v->ops;
    int64_t b = v->n_images, t = c->image.n_tokens, w = c->image.width;
    mm_act *patches = v->ports.spare;
    MM_TRY(ops->patchify(v->stream, v->columns, images, b, c->image_size,
                         c->patch_size, mm_pixel_mean, mm_pixel_deviation));
    MM_TRY(ops->linear(v->stream, patches, v->columns, conv1_weight, NULL, NULL,
                       b * (t - 1), patch_elems(c), w));
    MM_TRY(ops->embed_tokens(v->stream, v->embedded, patches,
                             p->class_embedding, p->positional_embedding, b, t,
                             w));
    return ops->layernorm(v->stream, v->ports.x, v->pre_mean, v->pre_rstd,
                          v->embedded, w, p->ln_pre_weight, p->ln_pre_bias,
                          mm_norm_eps, b * t, w);
}

mm_status mm_vit_forward(mm_vit *vit, const float *theta, const mm_act *weights,
                         const uint8_t *images, int64_t n_images,
                         float **features)
{
    MM_ASSERT(n_images >= 0 && n_images <= vit->max_images);
    const mm_model_config *c = vit->config;
    const mm_ops *ops = vit->ops;
    int64_t w = c->image.width;
    /* Weights and gradients share one struct of pointers; weights are only
     * read. */
    mm_vit_params p = mm_params_vit(c, (float *)theta);
    vit->n_images = n_images;
    MM_TRY(embed(vit, &p,
                 mm_low_precision_at(weights, mm_device_act_bytes(vit->device),
                                     theta, p.conv1_weight),
                 images));
    MM_TRY(mm_blocks_forward(vit->blocks, theta, weights, NULL, n_images,
                             c->image.n_tokens));
    MM_TRY(ops->layernorm(vit->stream, vit->normed, vit->post_mean,
                          vit->post_rstd, vit->ports.out, w, p.ln_post_weight,
                          p.ln_post_bias, mm_norm_eps, n_images, w));
    /* One row per image: from here on fp32. */
    MM_TRY(
        ops->act_to_float(vit->stream, vit->pooled, vit->normed, n_images * w));
    MM_TRY(ops->gemm(vit->stream, vit->features, vit->pooled, p.proj, false,
                     false, n_images, c->embed_dim, w, 0));
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

static mm_status backward_embed(mm_vit *v, const mm_vit_params *p,
                                const mm_vit_params *d, bool accumulate)
{
    const mm_model_config *c = v->config;
    const mm_ops *ops = v->ops;
    int64_t b = v->n_images, t = c->image.n_tokens, w = c->image.width;
    mm_stream *s = v->stream;
    mm_act *dembedded = v->ports.dspare[0], *dpatches = v->ports.dspare[1];
    MM_TRY(ops->layernorm_grad(s, dembedded, d->ln_pre_weight, d->ln_pre_bias,
                               NULL, NULL, v->ports.dx, v->embedded, w,
                               v->pre_mean, v->pre_rstd, p->ln_pre_weight,
                               accumulate, b * t, w));
    MM_TRY(ops->embed_tokens_grad(s, dpatches, d->class_embedding,
                                  d->positional_embedding, dembedded,
                                  accumulate, b, t, w));
    return ops->linear_grad_weight(s, d->conv1_weight, NULL, dpatches,
                                   v->columns, accumulate, b * (t - 1),
                                   patch_elems(c), w);
}

mm_status mm_vit_backward(mm_vit *vit, const float *theta,
                          const mm_act *weights, float *grad,
                          const float *dfeatures, bool accumulate,
                          const mm_grad_listener *listener)
{
    MM_ASSERT(vit->use != MM_VIT_INFERENCE);
    const mm_model_config *c = vit->config;
    const mm_ops *ops = vit->ops;
    int64_t b = vit->n_images, w = c->image.width;
    mm_stream *s = vit->stream;
    mm_vit_params p = mm_params_vit(c, (float *)theta);
    mm_vit_params d = mm_params_vit(c, grad);
    mm_act *dnormed = vit->ports.dspare[0];
    MM_TRY(ops->gemm(s, d.proj, vit->pooled, dfeatures, true, false, w,
                     c->embed_dim, b, accumulate));
    MM_TRY(ops->gemm(s, vit->dpooled, dfeatures, p.proj, false, true, b, w,
                     c->embed_dim, 0));
    MM_TRY(ops->float_to_act(s, dnormed, vit->dpooled, b * w));
    MM_TRY(ops->layernorm_grad(
        s, vit->ports.dout, d.ln_post_weight, d.ln_post_bias,
        mm_blocks_exit_bias_grad(vit->blocks, grad, c->image.n_layers - 1),
        NULL, dnormed, vit->ports.out, w, vit->post_mean, vit->post_rstd,
        p.ln_post_weight, accumulate, b, w));
    for (int64_t layer = c->image.n_layers - 1; layer >= 0; layer--) {
        MM_TRY(mm_blocks_backward(vit->blocks, theta, weights, grad, layer,
                                  accumulate));
        MM_TRY(tell(listener, c, layer, grad));
    }
    MM_TRY(backward_embed(vit, &p, &d, accumulate));
    return tell(listener, c, -1, grad);
}

/* ---- inspection -------------------------------------------------------- */

mm_status mm_vit_copy_activation(mm_vit *vit, int64_t layer, float *host)
{
    const mm_model_config *c = vit->config;
    MM_ASSERT(vit->use != MM_VIT_INFERENCE && layer < c->image.n_layers);
    bool last = layer == c->image.n_layers - 1;
    const mm_act *x =
        last ? vit->ports.out : mm_blocks_input(vit->blocks, layer + 1);
    int64_t rows = last ? vit->n_images : vit->n_images * c->image.n_tokens;
    int64_t n = rows * c->image.width, n_bytes = n * (int64_t)sizeof *host;
    void *floats;
    MM_TRY(mm_device_alloc(vit->device, n_bytes, &floats));
    mm_status st = vit->ops->act_to_float(vit->stream, floats, x, n);
    if (st == MM_OK)
        st = mm_copy_to_host(vit->stream, host, floats, n_bytes);
    if (st == MM_OK)
        st = mm_stream_sync(vit->stream);
    mm_device_free(vit->device, &floats);
    return st;
}

double mm_vit_forward_flop(const mm_model_config *config)
{
    double w = (double)config->image.width;
    double n_patches = (double)(config->image.n_tokens - 1);
    return mm_blocks_flop(&config->image, config->image.n_tokens) +
           2 * w *
               (n_patches * (double)patch_elems(config) +
                (double)config->embed_dim);
}
