/* open_clip's model JSON: every key is read, or known and checked to have the
 * supported value, or an error. */

#include "src/base/names.h"
#include "src/model/config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/** One key that a section may have. */
typedef struct key {
    const char *name;
    int64_t *integer; /* where it goes */
    double *real;
    bool *boolean;
    const json_t **section;
    int64_t least, most;
    bool needed;
    bool found;
} key;

/**
 * open_clip's options that are not supported, and the one value that is: its
 * default. Where that is NULL any value is accepted: the option has an effect
 * only with another one of this table, or on random weights.
 */
typedef struct fixed_key {
    const char *name, *value;
} fixed_key;

static const fixed_key fixed_top[] = {
    {"custom_text", "false"},
    {"multimodal_cfg", "null"},
    {"init_logit_scale", NULL},
    {"init_logit_bias", "null"},
};

static const fixed_key fixed_vision[] = {
    {"ls_init_value", "null"},
    {"patch_dropout", "0"},
    {"attentional_pool", "false"},
    {"attn_pooler_queries", NULL},
    {"attn_pooler_heads", NULL},
    {"input_patchnorm", "false"},
    {"global_average_pool", "false"},
    {"no_ln_pre", "false"},
    {"pos_embed_type", "\"learnable\""},
    {"final_ln_after_pool", "false"},
    {"pool_type", "\"tok\""},
    {"output_tokens", "false"},
    {"act_kwargs", "null"},
    {"norm_kwargs", "null"},
    {"timm_model_name", "null"},
    {"timm_model_pretrained", NULL},
    {"timm_pool", NULL},
    {"timm_proj", NULL},
    {"timm_proj_bias", NULL},
    {"timm_drop", NULL},
    {"timm_drop_path", NULL},
};

static const fixed_key fixed_text[] = {
    {"hf_tokenizer_name", "null"},
    {"tokenizer_kwargs", "null"},
    {"ls_init_value", "null"},
    {"embed_cls", "false"},
    {"pad_id", NULL},
    {"no_causal_mask", "false"},
    {"final_ln_after_pool", "false"},
    {"pool_type", "\"argmax\""},
    {"proj_bias", "false"},
    {"output_tokens", "false"},
    {"act_kwargs", "null"},
    {"norm_kwargs", "null"},
    {"hf_model_name", "null"},
    {"hf_model_pretrained", NULL},
    {"hf_proj_type", NULL},
    {"hf_pooler_type", NULL},
};

/** A section of the file: its name in messages, and its keys. */
typedef struct section {
    const char *name;
    key *keys;
    int n_keys;
    const fixed_key *fixed;
    int n_fixed;
} section;

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static mm_status read_key(const char *where, const section *s,
                          const json_t *value, key *k)
{
    if (k->section) {
        if (!json_is_object(value))
            return mm_fail(MM_E_FORMAT, "%s: %s%s is not an object", where,
                           s->name, k->name);
        *k->section = value;
    } else if (k->boolean) {
        if (!json_is_boolean(value))
            return mm_fail(MM_E_FORMAT, "%s: %s%s is not true or false", where,
                           s->name, k->name);
        *k->boolean = json_is_true(value);
    } else {
        double number = json_number_value(value);
        if (!json_is_number(value) || (k->integer && !json_is_integer(value)) ||
            !(number >= (double)k->least && number <= (double)k->most))
            return mm_fail(MM_E_FORMAT,
                           "%s: %s%s must be a%s number from %lld to %lld",
                           where, s->name, k->name, k->integer ? " whole" : "",
                           (long long)k->least, (long long)k->most);
        if (k->integer)
            *k->integer = json_integer_value(value);
        else
            *k->real = number;
    }
    k->found = true;
    return MM_OK;
}

static mm_status check_fixed(const char *where, const section *s,
                             const json_t *value, const fixed_key *fixed)
{
    if (!fixed->value)
        return MM_OK;
    if (json_is_number(value) && json_number_value(value) == 0 &&
        strcmp(fixed->value, "0") == 0)
        return MM_OK;
    char *text =
        json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    if (!text)
        return mm_fail(MM_E_MEMORY, "no memory for a model configuration");
    mm_status st = MM_OK;
    if (strcmp(text, fixed->value) != 0)
        st = mm_fail(MM_E_ARG,
                     "%s: %s%s %.60s is not supported, only %s, open_clip's "
                     "default",
                     where, s->name, fixed->name, text, fixed->value);
    free(text);
    return st;
}

static mm_status fail_unknown(const char *where, const section *s,
                              const char *name)
{
    const char *names[8];
    MM_ASSERT(s->n_keys <= COUNT(names));
    for (int i = 0; i < s->n_keys; i++)
        names[i] = s->keys[i].name;
    mm_names_unknown("key", name, names, s->n_keys);
    return mm_fail(MM_E_ARG, "%s: %s%s%s", where, s->name,
                   s->name[0] ? " " : "", mm_fail_message());
}

static mm_status read_section(const char *where, const json_t *object,
                              const section *s)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        int i = 0, j = 0;
        while (i < s->n_keys && strcmp(s->keys[i].name, name) != 0)
            i++;
        while (j < s->n_fixed && strcmp(s->fixed[j].name, name) != 0)
            j++;
        if (i < s->n_keys)
            MM_TRY(read_key(where, s, value, &s->keys[i]));
        else if (j < s->n_fixed)
            MM_TRY(check_fixed(where, s, value, &s->fixed[j]));
        else
            return fail_unknown(where, s, name);
    }
    for (int i = 0; i < s->n_keys; i++)
        if (s->keys[i].needed && !s->keys[i].found)
            return mm_fail(MM_E_FORMAT, "%s: %s%s is missing", where, s->name,
                           s->keys[i].name);
    return MM_OK;
}

enum { MOST = 1 << 20 };

static mm_status set_mlp_width(const char *where, const char *section_name,
                               double ratio, mm_tower_config *tower)
{
    tower->mlp_width = (int64_t)((double)tower->width * ratio);
    if (tower->mlp_width < 1)
        return mm_fail(MM_E_FORMAT,
                       "%s: %smlp_ratio makes an MLP without width", where,
                       section_name);
    return MM_OK;
}

static mm_status read_vision(const char *where, const json_t *object,
                             mm_model_config *c)
{
    mm_tower_config *t = &c->image;
    int64_t head_width = 64;
    double mlp_ratio = 4.0;
    key keys[] = {
        {"image_size", &c->image_size, .least = 1, .most = 16384,
         .needed = true},
        {"patch_size", &c->patch_size, .least = 1, .most = 16384,
         .needed = true},
        {"width", &t->width, .least = 1, .most = MOST, .needed = true},
        {"layers", &t->n_layers, .least = 1, .most = 1024, .needed = true},
        {"head_width", &head_width, .least = 1, .most = MOST},
        {"mlp_ratio", .real = &mlp_ratio, .least = 0, .most = 1024},
    };
    const section s = {"vision_cfg.", keys, COUNT(keys), fixed_vision,
                       COUNT(fixed_vision)};
    if (json_is_array(json_object_get(object, "layers")))
        return mm_fail(MM_E_ARG,
                       "%s: vision_cfg.layers is a list: a ResNet, and only "
                       "Vision Transformers are supported",
                       where);
    MM_TRY(read_section(where, object, &s));
    if (t->width % head_width)
        return mm_fail(MM_E_FORMAT,
                       "%s: width %lld is not a multiple of head_width %lld",
                       where, (long long)t->width, (long long)head_width);
    if (c->image_size % c->patch_size)
        return mm_fail(
            MM_E_FORMAT,
            "%s: image_size %lld is not a multiple of patch_size %lld", where,
            (long long)c->image_size, (long long)c->patch_size);
    t->n_heads = t->width / head_width;
    int64_t grid = c->image_size / c->patch_size;
    t->n_tokens = grid * grid + 1;
    return set_mlp_width(where, s.name, mlp_ratio, t);
}

static mm_status read_text(const char *where, const json_t *object,
                           mm_model_config *c)
{
    mm_tower_config *t = &c->text;
    double mlp_ratio = 4.0;
    *t = (mm_tower_config){.width = 512,
                           .n_layers = 12,
                           .n_heads = 8,
                           .n_tokens = 77,
                           .causal = true};
    c->vocab_size = 49408;
    key keys[] = {
        {"context_length", &t->n_tokens, .least = 1, .most = MOST},
        {"vocab_size", &c->vocab_size, .least = 1, .most = INT32_MAX},
        {"width", &t->width, .least = 1, .most = MOST},
        {"heads", &t->n_heads, .least = 1, .most = MOST},
        {"layers", &t->n_layers, .least = 1, .most = 1024},
        {"mlp_ratio", .real = &mlp_ratio, .least = 0, .most = 1024},
    };
    const section s = {"text_cfg.", keys, COUNT(keys), fixed_text,
                       COUNT(fixed_text)};
    MM_TRY(read_section(where, object, &s));
    if (t->width % t->n_heads)
        return mm_fail(
            MM_E_FORMAT,
            "%s: text_cfg.width %lld is not a multiple of heads %lld", where,
            (long long)t->width, (long long)t->n_heads);
    c->has_text = true;
    return set_mlp_width(where, s.name, mlp_ratio, t);
}

static mm_status read_config(const char *where, const json_t *root,
                             mm_model_config *c)
{
    bool quick_gelu = false;
    const json_t *vision = NULL, *text = NULL;
    key keys[] = {
        {"embed_dim", &c->embed_dim, .least = 1, .most = MOST, .needed = true},
        {"quick_gelu", .boolean = &quick_gelu},
        {"vision_cfg", .section = &vision, .needed = true},
        {"text_cfg", .section = &text},
    };
    const section s = {"", keys, COUNT(keys), fixed_top, COUNT(fixed_top)};
    if (!json_is_object(root))
        return mm_fail(MM_E_FORMAT, "%s: not a JSON object", where);
    MM_TRY(read_section(where, root, &s));
    MM_TRY(read_vision(where, vision, c));
    if (text)
        MM_TRY(read_text(where, text, c));
    c->image.activation = quick_gelu ? MM_QUICK_GELU : MM_GELU;
    c->text.activation = c->image.activation;
    return MM_OK;
}

mm_status mm_model_config_parse(const char *text, const char *where,
                                mm_model_config *config)
{
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return mm_fail(MM_E_FORMAT, "%s: line %d: %s", where, error.line,
                       error.text);
    mm_model_config parsed = {0};
    mm_status st = read_config(where, root, &parsed);
    if (st == MM_OK) {
        parsed.json = json_dumps(root, 0);
        if (!parsed.json)
            st = mm_fail(MM_E_MEMORY, "no memory for a model configuration");
    }
    json_decref(root);
    if (st == MM_OK)
        *config = parsed;
    return st;
}
