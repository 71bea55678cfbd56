/* The tensors of both towers, their order in the flat buffer, pointers into it,
 * and random initial weights. */

#include "src/model/params.h"

#include "src/base/rng.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/** What a tensor's shape is made of. */
typedef enum extent {
    END,
    WIDTH,
    WIDTH3,
    MLP,
    EMBED,
    TOKENS,
    CHANNELS,
    PATCH,
    VOCAB
} extent;

/** One tensor: its open_clip name, its shape, and the field that points there.
 * The order of these lists is the order of the flat buffer. */
typedef struct row {
    const char *name;
    extent shape[4];
    size_t field;
} row;

#define VIT(name, field, ...)                               \
    {                                                       \
        name, {__VA_ARGS__}, offsetof(mm_vit_params, field) \
    }
#define TEXT(name, field, ...)                               \
    {                                                        \
        name, {__VA_ARGS__}, offsetof(mm_text_params, field) \
    }
#define BLOCK(name, field, ...)                               \
    {                                                         \
        name, {__VA_ARGS__}, offsetof(mm_block_params, field) \
    }

static const row vit_before[] = {
    VIT("class_embedding", class_embedding, WIDTH),
    VIT("positional_embedding", positional_embedding, TOKENS, WIDTH),
    VIT("proj", proj, WIDTH, EMBED),
    VIT("conv1.weight", conv1_weight, WIDTH, CHANNELS, PATCH, PATCH),
    VIT("ln_pre.weight", ln_pre_weight, WIDTH),
    VIT("ln_pre.bias", ln_pre_bias, WIDTH),
};

static const row vit_after[] = {
    VIT("ln_post.weight", ln_post_weight, WIDTH),
    VIT("ln_post.bias", ln_post_bias, WIDTH),
};

static const row text_before[] = {
    TEXT("positional_embedding", positional_embedding, TOKENS, WIDTH),
    TEXT("text_projection", text_projection, WIDTH, EMBED),
    TEXT("logit_scale", logit_scale, END),
};

static const row text_after[] = {
    TEXT("token_embedding.weight", token_embedding, VOCAB, WIDTH),
    TEXT("ln_final.weight", ln_final_weight, WIDTH),
    TEXT("ln_final.bias", ln_final_bias, WIDTH),
};

static const row in_block[] = {
    BLOCK("ln_1.weight", ln_1_weight, WIDTH),
    BLOCK("ln_1.bias", ln_1_bias, WIDTH),
    BLOCK("attn.in_proj_weight", in_proj_weight, WIDTH3, WIDTH),
    BLOCK("attn.in_proj_bias", in_proj_bias, WIDTH3),
    BLOCK("attn.out_proj.weight", out_proj_weight, WIDTH, WIDTH),
    BLOCK("attn.out_proj.bias", out_proj_bias, WIDTH),
    BLOCK("ln_2.weight", ln_2_weight, WIDTH),
    BLOCK("ln_2.bias", ln_2_bias, WIDTH),
    BLOCK("mlp.c_fc.weight", c_fc_weight, MLP, WIDTH),
    BLOCK("mlp.c_fc.bias", c_fc_bias, MLP),
    BLOCK("mlp.c_proj.weight", c_proj_weight, WIDTH, MLP),
    BLOCK("mlp.c_proj.bias", c_proj_bias, WIDTH),
};

enum { N_BLOCK = sizeof in_block / sizeof *in_block };

/** A tower: what stands before its blocks, what behind them, and how its
 * tensors' names begin. */
typedef struct tower {
    const row *before, *after;
    int n_before, n_after;
    const char *prefix;
} tower;

#define ROWS(before, after)                            \
    before, after, (int)(sizeof before / sizeof(row)), \
        (int)(sizeof after / sizeof(row))

static const tower towers[] = {
    [MM_IMAGE_TOWER] = {ROWS(vit_before, vit_after), MM_VISUAL_PREFIX},
    [MM_TEXT_TOWER] = {ROWS(text_before, text_after), ""},
};

static const mm_tower_config *blocks_of(const mm_model_config *c, mm_tower of)
{
    return of == MM_TEXT_TOWER ? &c->text : &c->image;
}

static int64_t extent_of(const mm_model_config *c, mm_tower of, extent e)
{
    const mm_tower_config *t = blocks_of(c, of);
    switch (e) {
    case WIDTH:
        return t->width;
    case WIDTH3:
        return 3 * t->width;
    case MLP:
        return t->mlp_width;
    case EMBED:
        return c->embed_dim;
    case TOKENS:
        return t->n_tokens;
    case CHANNELS:
        return 3;
    case PATCH:
        return c->patch_size;
    case VOCAB:
        return c->vocab_size;
    case END:
        break;
    }
    return 1;
}

static int64_t row_elems(const mm_model_config *c, mm_tower of, const row *r)
{
    int64_t n = 1;
    for (int i = 0; i < 4; i++)
        n *= extent_of(c, of, r->shape[i]);
    return n;
}

static int64_t rows_elems(const mm_model_config *c, mm_tower of,
                          const row *rows, int n)
{
    int64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += row_elems(c, of, &rows[i]);
    return sum;
}

static mm_status add_rows(const mm_model_config *c, mm_tower of,
                          const row *rows, int n, const char *prefix,
                          mm_tensor_table *table)
{
    for (int i = 0; i < n; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", prefix, rows[i].name);
        int64_t shape[4];
        int n_dims = 0;
        while (n_dims < 4 && rows[i].shape[n_dims] != END) {
            shape[n_dims] = extent_of(c, of, rows[i].shape[n_dims]);
            n_dims++;
        }
        MM_TRY(mm_tensor_table_add(table, name, n_dims, shape));
    }
    return MM_OK;
}

static mm_status add_blocks_and_after(const mm_model_config *c, mm_tower of,
                                      mm_tensor_table *table)
{
    const tower *t = &towers[of];
    for (int64_t layer = 0; layer < blocks_of(c, of)->n_layers; layer++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%stransformer.resblocks.%lld.",
                 t->prefix, (long long)layer);
        MM_TRY(add_rows(c, of, in_block, N_BLOCK, prefix, table));
    }
    return add_rows(c, of, t->after, t->n_after, t->prefix, table);
}

static mm_status add_before(const mm_model_config *c, mm_tower of,
                            mm_tensor_table *table)
{
    const tower *t = &towers[of];
    return add_rows(c, of, t->before, t->n_before, t->prefix, table);
}

mm_status mm_params_table(const mm_model_config *config, mm_tensor_table *table)
{
    MM_TRY(add_before(config, MM_IMAGE_TOWER, table));
    return add_blocks_and_after(config, MM_IMAGE_TOWER, table);
}

mm_status mm_params_text_table(const mm_model_config *config,
                               mm_tensor_table *table)
{
    MM_ASSERT(config->has_text);
    MM_TRY(add_before(config, MM_TEXT_TOWER, table));
    return add_blocks_and_after(config, MM_TEXT_TOWER, table);
}

mm_status mm_params_clip_table(const mm_model_config *config,
                               mm_tensor_table *table)
{
    MM_ASSERT(config->has_text);
    MM_TRY(add_before(config, MM_TEXT_TOWER, table));
    MM_TRY(mm_params_table(config, table));
    return add_blocks_and_after(config, MM_TEXT_TOWER, table);
}

static void point_rows(const mm_model_config *c, mm_tower of, const row *rows,
                       int n, float *at, void *fields)
{
    for (int i = 0; i < n; i++) {
        memcpy((char *)fields + rows[i].field, &at, sizeof at);
        at += row_elems(c, of, &rows[i]);
    }
}

static int64_t block_offset(const mm_model_config *c, mm_tower of,
                            int64_t layer)
{
    return rows_elems(c, of, towers[of].before, towers[of].n_before) +
           layer * rows_elems(c, of, in_block, N_BLOCK);
}

static void point_tower(const mm_model_config *c, mm_tower of, float *flat,
                        void *fields)
{
    const tower *t = &towers[of];
    point_rows(c, of, t->before, t->n_before, flat, fields);
    point_rows(c, of, t->after, t->n_after,
               flat + block_offset(c, of, blocks_of(c, of)->n_layers), fields);
}

mm_vit_params mm_params_vit(const mm_model_config *config, float *flat)
{
    mm_vit_params p;
    point_tower(config, MM_IMAGE_TOWER, flat, &p);
    return p;
}

mm_text_params mm_params_text(const mm_model_config *config, float *flat)
{
    mm_text_params p;
    point_tower(config, MM_TEXT_TOWER, flat, &p);
    return p;
}

mm_block_params mm_params_block(const mm_model_config *config, mm_tower of,
                                int64_t layer, float *flat)
{
    mm_block_params p;
    point_rows(config, of, in_block, N_BLOCK,
               flat + block_offset(config, of, layer), &p);
    return p;
}

void mm_params_range(const mm_model_config *config, int64_t layer, int64_t *lo,
                     int64_t *hi)
{
    const tower *t = &towers[MM_IMAGE_TOWER];
    *lo = layer < 0 ? 0 : block_offset(config, MM_IMAGE_TOWER, layer);
    *hi = block_offset(config, MM_IMAGE_TOWER, layer + 1);
    if (layer == config->image.n_layers - 1)
        *hi += rows_elems(config, MM_IMAGE_TOWER, t->after, t->n_after);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/** Standard deviation of a tensor's entries; 0 for a constant. */
static double init_deviation(const mm_model_config *c, const char *name)
{
    bool visual =
        strncmp(name, MM_VISUAL_PREFIX, sizeof MM_VISUAL_PREFIX - 1) == 0;
    const mm_tower_config *t = visual ? &c->image : &c->text;
    double width = (double)t->width;
    double residual = pow(2.0 * (double)t->n_layers, -0.5);
    if (!visual && ends_with(name, "token_embedding.weight"))
        return 0.02;
    if (!visual && ends_with(name, "positional_embedding"))
        return 0.01;
    if (ends_with(name, "class_embedding") ||
        ends_with(name, "positional_embedding") ||
        ends_with(name, "visual.proj") || ends_with(name, "text_projection") ||
        ends_with(name, "in_proj_weight"))
        return pow(width, -0.5);
    if (ends_with(name, "conv1.weight"))
        return pow(3.0 * (double)(c->patch_size * c->patch_size), -0.5);
    if (ends_with(name, "out_proj.weight") || ends_with(name, "c_proj.weight"))
        return pow(width, -0.5) * residual;
    if (ends_with(name, "c_fc.weight"))
        return pow(2.0 * width, -0.5);
    return 0;
}

/** What the entries of a tensor without a deviation are. */
static float init_constant(const char *name)
{
    if (strcmp(name, "logit_scale") == 0)
        return 2.6592600f; /* log(1 / 0.07) */
    return strstr(name, "ln_") && ends_with(name, ".weight") ? 1.0f : 0.0f;
}

void mm_params_randomize(const mm_model_config *config,
                         const mm_tensor_table *table, uint64_t seed,
                         float *theta)
{
    mm_rng_key key = mm_rng_key_of(seed, MM_RNG_INIT);
    for (int t = 0; t < table->n_tensors; t++) {
        const mm_tensor *tensor = &table->tensors[t];
        double deviation = init_deviation(config, tensor->name);
        float constant = init_constant(tensor->name);
        float *x = theta + tensor->off_elems;
        /* At 50 ns per number a large tower takes one thread seconds. */
#pragma omp parallel for
        for (int64_t i = 0; i < tensor->n_elems; i++)
            x[i] = deviation > 0
                       ? (float)(deviation *
                                 mm_rng_normal(key, (uint64_t)i, (uint64_t)t))
                       : constant;
    }
}
