/* Configuration files of other programs (open_clip_config.json, Hugging Face's
 * config.json) as open_clip's model JSON. */

#include "src/model/config_files.h"

#include "src/model/vit.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static mm_status no_memory(void)
{
    return mm_fail(MM_E_MEMORY, "no memory for a model configuration");
}

static mm_status parse(const char *text, const char *where, json_t **root)
{
    json_error_t error;
    *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!*root)
        return mm_fail(MM_E_FORMAT, "%s: line %d: %s", where, error.line,
                       error.text);
    if (!json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return mm_fail(MM_E_FORMAT, "%s: not a JSON object", where);
    }
    return MM_OK;
}

/* ---- from sizes --------------------------------------------------------- */

/** The ratio that gives an MLP's width back, or 0 for the usual one. */
static double mlp_ratio(const mm_tower_config *tower)
{
    if (tower->mlp_width == 4 * tower->width)
        return 0;
    double ratio = (double)tower->mlp_width / (double)tower->width;
    while ((int64_t)((double)tower->width * ratio) < tower->mlp_width)
        ratio = nextafter(ratio, HUGE_VAL);
    return ratio;
}

static int add_ratio(json_t *section, const mm_tower_config *tower)
{
    double ratio = mlp_ratio(tower);
    return ratio > 0
               ? json_object_set_new(section, "mlp_ratio", json_real(ratio))
               : 0;
}

static json_t *vision_json(const mm_model_config *c)
{
    const mm_tower_config *t = &c->image;
    json_t *vision = json_pack(
        "{s:I, s:I, s:I, s:I}", "image_size", (json_int_t)c->image_size,
        "patch_size", (json_int_t)c->patch_size, "width", (json_int_t)t->width,
        "layers", (json_int_t)t->n_layers);
    int64_t head_width = t->width / t->n_heads;
    int failed = vision ? add_ratio(vision, t) : -1;
    if (!failed && head_width != 64)
        failed =
            json_object_set_new(vision, "head_width", json_integer(head_width));
    if (!failed)
        return vision;
    json_decref(vision);
    return NULL;
}

static json_t *text_json(const mm_model_config *c)
{
    const mm_tower_config *t = &c->text;
    json_t *text = json_pack(
        "{s:I, s:I, s:I, s:I, s:I}", "context_length", (json_int_t)t->n_tokens,
        "vocab_size", (json_int_t)c->vocab_size, "width", (json_int_t)t->width,
        "heads", (json_int_t)t->n_heads, "layers", (json_int_t)t->n_layers);
    if (text && add_ratio(text, t) == 0)
        return text;
    json_decref(text);
    return NULL;
}

mm_status mm_model_config_write(const mm_model_config *config, char **model)
{
    bool quick = config->image.activation == MM_QUICK_GELU;
    json_t *vision = vision_json(config);
    json_t *text = config->has_text ? text_json(config) : NULL;
    json_t *root =
        vision && (text || !config->has_text)
            ? json_pack("{s:I, s:b, s:O, s:O*}", "embed_dim",
                        (json_int_t)config->embed_dim, "quick_gelu", (int)quick,
                        "vision_cfg", vision, "text_cfg", text)
            : NULL;
    *model = root ? json_dumps(root, 0) : NULL;
    json_decref(root);
    json_decref(vision);
    json_decref(text);
    return *model ? MM_OK : no_memory();
}

/* ---- open_clip_config.json ---------------------------------------------- */

static bool same_three(const json_t *values, const float expected[3])
{
    for (size_t i = 0; i < 3; i++) {
        double value = json_number_value(json_array_get(values, i));
        if (!(fabs(value - (double)expected[i]) < 1e-4))
            return false;
    }
    return json_array_size(values) == 3;
}

static bool has_other_pixels(const json_t *preprocess)
{
    const json_t *mean = json_object_get(preprocess, "mean");
    const json_t *deviation = json_object_get(preprocess, "std");
    return (mean && !same_three(mean, mm_pixel_mean)) ||
           (deviation && !same_three(deviation, mm_pixel_deviation));
}

mm_status mm_config_from_open_clip(const char *text, const char *where,
                                   char **model, bool *other_pixels)
{
    json_t *root = NULL;
    MM_TRY(parse(text, where, &root));
    const json_t *config = json_object_get(root, "model_cfg");
    mm_status st = MM_OK;
    *model = NULL;
    if (!json_is_object(config)) {
        st = mm_fail(MM_E_FORMAT, "%s: model_cfg is missing", where);
    } else {
        *other_pixels =
            has_other_pixels(json_object_get(root, "preprocess_cfg"));
        *model = json_dumps(config, 0);
        if (!*model)
            st = no_memory();
    }
    json_decref(root);
    return st;
}

/* ---- Hugging Face's config.json ----------------------------------------- */

/** One section of the file, for messages too. */
typedef struct section {
    const char *where, *name;
    const json_t *object; /* NULL: all defaults */
} section;

static mm_status read_size(const section *s, const char *key, int64_t fallback,
                           int64_t *size)
{
    const json_t *value = json_object_get(s->object, key);
    *size = value ? json_integer_value(value) : fallback;
    if (value && (!json_is_integer(value) || *size < 1 || *size > INT32_MAX))
        return mm_fail(MM_E_FORMAT, "%s: %s%s must be a whole number from 1",
                       s->where, s->name, key);
    return MM_OK;
}

/** A number that must be what CLIP's models have, where it is there. */
static mm_status check_number(const section *s, const char *key, double needed)
{
    const json_t *value = json_object_get(s->object, key);
    if (value && !(fabs(json_number_value(value) - needed) <= 1e-9))
        return mm_fail(MM_E_ARG, "%s: %s%s is not supported, only %g", s->where,
                       s->name, key, needed);
    return MM_OK;
}

static mm_status read_activation(const section *s, mm_activation *activation)
{
    const json_t *value = json_object_get(s->object, "hidden_act");
    const char *name = value ? json_string_value(value) : "quick_gelu";
    *activation = MM_QUICK_GELU;
    if (name && strcmp(name, "gelu") == 0)
        *activation = MM_GELU;
    else if (!name || strcmp(name, "quick_gelu") != 0)
        return mm_fail(MM_E_ARG,
                       "%s: %shidden_act %.40s is not supported, only "
                       "quick_gelu and gelu",
                       s->where, s->name, name ? name : "that is not a string");
    return MM_OK;
}

/** What both towers have, with the defaults of the tower's class. */
static mm_status read_tower(const section *s, mm_tower_config *t)
{
    MM_TRY(read_size(s, "hidden_size", t->width, &t->width));
    MM_TRY(read_size(s, "num_hidden_layers", t->n_layers, &t->n_layers));
    MM_TRY(read_size(s, "num_attention_heads", t->n_heads, &t->n_heads));
    MM_TRY(read_size(s, "intermediate_size", t->mlp_width, &t->mlp_width));
    if (t->width % t->n_heads)
        return mm_fail(MM_E_FORMAT,
                       "%s: %shidden_size %lld is not a multiple of "
                       "num_attention_heads %lld",
                       s->where, s->name, (long long)t->width,
                       (long long)t->n_heads);
    MM_TRY(check_number(s, "layer_norm_eps", 1e-5));
    return read_activation(s, &t->activation);
}

/* In transformers the older key, where it is there, overrides the other. */
static const json_t *find_section(const json_t *root, const char *key,
                                  const char *older_key)
{
    const json_t *older = json_object_get(root, older_key);
    return json_is_object(older) ? older : json_object_get(root, key);
}

static mm_status read_image(const section *s, mm_model_config *c)
{
    c->image = (mm_tower_config){
        .width = 768, .n_layers = 12, .n_heads = 12, .mlp_width = 3072};
    MM_TRY(read_tower(s, &c->image));
    MM_TRY(check_number(s, "num_channels", 3));
    MM_TRY(read_size(s, "image_size", 224, &c->image_size));
    return read_size(s, "patch_size", 32, &c->patch_size);
}

static mm_status read_text(const section *s, mm_model_config *c)
{
    c->has_text = true;
    c->text = (mm_tower_config){
        .width = 512, .n_layers = 12, .n_heads = 8, .mlp_width = 2048};
    MM_TRY(read_tower(s, &c->text));
    MM_TRY(read_size(s, "max_position_embeddings", 77, &c->text.n_tokens));
    return read_size(s, "vocab_size", 49408, &c->vocab_size);
}

static mm_status read_both(const char *where, const json_t *root,
                           mm_model_config *c)
{
    section image = {where, "vision_config.",
                     find_section(root, "vision_config", "vision_config_dict")};
    section text = {where, "text_config.",
                    find_section(root, "text_config", "text_config_dict")};
    MM_TRY(read_image(&image, c));
    MM_TRY(read_text(&text, c));
    if (c->image.activation != c->text.activation)
        return mm_fail(MM_E_ARG,
                       "%s: the towers' hidden_act differ, which is not "
                       "supported",
                       where);
    return MM_OK;
}

static mm_status read_huggingface(const char *where, const json_t *root,
                                  mm_model_config *c)
{
    section top = {where, "", root};
    const json_t *value = json_object_get(root, "model_type");
    const char *type = value ? json_string_value(value) : "clip";
    MM_TRY(read_size(&top, "projection_dim", 512, &c->embed_dim));
    if (type && strcmp(type, "clip") == 0)
        return read_both(where, root, c);
    if (type && strcmp(type, "clip_vision_model") == 0)
        return read_image(&top, c);
    return mm_fail(MM_E_ARG,
                   "%s: model_type %.40s is not supported, only clip and "
                   "clip_vision_model",
                   where, type ? type : "that is not a string");
}

mm_status mm_config_from_huggingface(const char *text, const char *where,
                                     char **model)
{
    json_t *root = NULL;
    mm_model_config config = {0};
    *model = NULL;
    MM_TRY(parse(text, where, &root));
    mm_status st = read_huggingface(where, root, &config);
    json_decref(root);
    if (st == MM_OK)
        st = mm_model_config_write(&config, model);
    return st;
}
