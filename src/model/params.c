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
    PATCH
} extent;

/** One tensor: its open_clip name, its shape, and the field that points there.
 * The order of these two lists is the order of the flat buffer. */
typedef struct row {
    const char *name;
    extent shape[4];
    size_t field;
} row;

#define TOWER(name, field, ...)                             \
    {                                                       \
        name, {__VA_ARGS__}, offsetof(mm_vit_params, field) \
    }
#define BLOCK(name, field, ...)                               \
    {                                                         \
        name, {__VA_ARGS__}, offsetof(mm_block_params, field) \
    }

static const row before_blocks[] = {
    TOWER("class_embedding", class_embedding, WIDTH),
    TOWER("positional_embedding", positional_embedding, TOKENS, WIDTH),
    TOWER("proj", proj, WIDTH, EMBED),
    TOWER("conv1.weight", conv1_weight, WIDTH, CHANNELS, PATCH, PATCH),
    TOWER("ln_pre.weight", ln_pre_weight, WIDTH),
    TOWER("ln_pre.bias", ln_pre_bias, WIDTH),
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

static const row after_blocks[] = {
    TOWER("ln_post.weight", ln_post_weight, WIDTH),
    TOWER("ln_post.bias", ln_post_bias, WIDTH),
};

enum {
    N_BEFORE = sizeof before_blocks / sizeof *before_blocks,
    N_BLOCK = sizeof in_block / sizeof *in_block,
    N_AFTER = sizeof after_blocks / sizeof *after_blocks
};

static int64_t extent_of(const mm_model_config *c, extent e)
{
    switch (e) {
    case WIDTH:
        return c->width;
    case WIDTH3:
        return 3 * c->width;
    case MLP:
        return c->mlp_width;
    case EMBED:
        return c->embed_dim;
    case TOKENS:
        return c->n_tokens;
    case CHANNELS:
        return 3;
    case PATCH:
        return c->patch_size;
    case END:
        break;
    }
    return 1;
}

static int64_t row_elems(const mm_model_config *c, const row *r)
{
    int64_t n = 1;
    for (int i = 0; i < 4; i++)
        n *= extent_of(c, r->shape[i]);
    return n;
}

static int64_t rows_elems(const mm_model_config *c, const row *rows, int n)
{
    int64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += row_elems(c, &rows[i]);
    return sum;
}

static mm_status add_rows(const mm_model_config *c, const row *rows, int n,
                          const char *prefix, mm_tensor_table *table)
{
    for (int i = 0; i < n; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", prefix, rows[i].name);
        int64_t shape[4];
        int n_dims = 0;
        while (n_dims < 4 && rows[i].shape[n_dims] != END) {
            shape[n_dims] = extent_of(c, rows[i].shape[n_dims]);
            n_dims++;
        }
        MM_TRY(mm_tensor_table_add(table, name, n_dims, shape));
    }
    return MM_OK;
}

mm_status mm_params_table(const mm_model_config *config, mm_tensor_table *table)
{
    MM_TRY(add_rows(config, before_blocks, N_BEFORE, MM_VISUAL_PREFIX, table));
    for (int64_t layer = 0; layer < config->n_layers; layer++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "visual.transformer.resblocks.%lld.",
                 (long long)layer);
        MM_TRY(add_rows(config, in_block, N_BLOCK, prefix, table));
    }
    return add_rows(config, after_blocks, N_AFTER, MM_VISUAL_PREFIX, table);
}

static float *point_rows(const mm_model_config *c, const row *rows, int n,
                         float *at, void *fields)
{
    for (int i = 0; i < n; i++) {
        memcpy((char *)fields + rows[i].field, &at, sizeof at);
        at += row_elems(c, &rows[i]);
    }
    return at;
}

static int64_t block_offset(const mm_model_config *c, int64_t layer)
{
    return rows_elems(c, before_blocks, N_BEFORE) +
           layer * rows_elems(c, in_block, N_BLOCK);
}

mm_vit_params mm_params_vit(const mm_model_config *config, float *flat)
{
    mm_vit_params p;
    point_rows(config, before_blocks, N_BEFORE, flat, &p);
    point_rows(config, after_blocks, N_AFTER,
               flat + block_offset(config, config->n_layers), &p);
    return p;
}

mm_block_params mm_params_block(const mm_model_config *config, int64_t layer,
                                float *flat)
{
    mm_block_params p;
    point_rows(config, in_block, N_BLOCK, flat + block_offset(config, layer),
               &p);
    return p;
}

void mm_params_range(const mm_model_config *config, int64_t layer, int64_t *lo,
                     int64_t *hi)
{
    *lo = layer < 0 ? 0 : block_offset(config, layer);
    *hi = block_offset(config, layer + 1);
    if (layer == config->n_layers - 1)
        *hi += rows_elems(config, after_blocks, N_AFTER);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/** Standard deviation of a tensor's entries; 0 for a constant. */
static double init_deviation(const mm_model_config *c, const char *name)
{
    double width = (double)c->width;
    double residual = pow(2.0 * (double)c->n_layers, -0.5);
    if (ends_with(name, "class_embedding") ||
        ends_with(name, "positional_embedding") ||
        ends_with(name, "visual.proj") || ends_with(name, "in_proj_weight"))
        return pow(width, -0.5);
    if (ends_with(name, "conv1.weight"))
        return pow(3.0 * (double)(c->patch_size * c->patch_size), -0.5);
    if (ends_with(name, "out_proj.weight") || ends_with(name, "c_proj.weight"))
        return pow(width, -0.5) * residual;
    if (ends_with(name, "c_fc.weight"))
        return pow(2.0 * width, -0.5);
    return 0;
}

void mm_params_init(const mm_model_config *config, const mm_tensor_table *table,
                    uint64_t seed, float *theta)
{
    mm_rng_key key = mm_rng_key_of(seed, MM_RNG_INIT);
    for (int t = 0; t < table->n_tensors; t++) {
        const mm_tensor *tensor = &table->tensors[t];
        double deviation = init_deviation(config, tensor->name);
        bool is_gain =
            strstr(tensor->name, "ln_") && ends_with(tensor->name, ".weight");
        float *x = theta + tensor->off_elems;
        for (int64_t i = 0; i < tensor->n_elems; i++)
            x[i] = deviation > 0
                       ? (float)(deviation *
                                 mm_rng_normal(key, (uint64_t)i, (uint64_t)t))
                       : (is_gain ? 1.0f : 0.0f);
    }
}
