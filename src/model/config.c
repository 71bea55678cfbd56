#include "src/model/config.h"

#include "io/file.h"
#include "src/base/names.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- built-in configurations ------------------------------------------- */

typedef struct builtin {
    const char *name;
    int embed_dim, image_size, patch_size, width, layers;
    int text_width, text_heads;
} builtin;

/* Sizes of Radford et al. 2021, table 20. */
static const builtin builtins[] = {
    {"ViT-B-32", 512, 224, 32, 768, 12, 512, 8},
    {"ViT-B-16", 512, 224, 16, 768, 12, 512, 8},
    {"ViT-L-14", 768, 224, 14, 1024, 24, 768, 12},
    {"ViT-L-14-336", 768, 336, 14, 1024, 24, 768, 12},
};

enum { N_BUILTINS = sizeof builtins / sizeof *builtins };

static const char twin_suffix[] = "-quickgelu";

static mm_status parse_builtin(const builtin *b, bool quick_gelu,
                               mm_model_config *config)
{
    char text[512];
    snprintf(text, sizeof text,
             "{\"embed_dim\": %d, \"quick_gelu\": %s, \"vision_cfg\": "
             "{\"image_size\": %d, \"patch_size\": %d, \"width\": %d, "
             "\"layers\": %d}, \"text_cfg\": {\"context_length\": 77, "
             "\"vocab_size\": 49408, \"width\": %d, \"heads\": %d, "
             "\"layers\": 12}}",
             b->embed_dim, quick_gelu ? "true" : "false", b->image_size,
             b->patch_size, b->width, b->layers, b->text_width, b->text_heads);
    return mm_model_config_parse(text, b->name, config);
}

static mm_status fail_unknown_model(const char *name)
{
    char twins[N_BUILTINS][32];
    const char *names[2 * N_BUILTINS];
    for (int i = 0; i < N_BUILTINS; i++) {
        snprintf(twins[i], sizeof twins[i], "%s%s", builtins[i].name,
                 twin_suffix);
        names[2 * i] = builtins[i].name;
        names[2 * i + 1] = twins[i];
    }
    mm_names_unknown("model", name, names, 2 * N_BUILTINS);
    return mm_fail(MM_E_ARG, "%s, or the path of a .json file",
                   mm_fail_message());
}

mm_status mm_model_config_find(const char *name, mm_model_config *config)
{
    for (int i = 0; i < N_BUILTINS; i++) {
        size_t length = strlen(builtins[i].name);
        if (strncmp(name, builtins[i].name, length) != 0)
            continue;
        if (!name[length] || strcmp(name + length, twin_suffix) == 0)
            return parse_builtin(&builtins[i], name[length] != '\0', config);
    }
    const char *dot = strrchr(name, '.');
    bool looks_like_path =
        strchr(name, '/') || (dot && strcmp(dot, ".json") == 0);
    if (!looks_like_path && !mm_file_exists(name))
        return fail_unknown_model(name);
    char *text = NULL;
    MM_TRY(mm_file_read_text(name, 1 << 20, &text));
    mm_status st = mm_model_config_parse(text, name, config);
    free(text);
    return st;
}

/* ---- open_clip's JSON -------------------------------------------------- */

/** One key that a section may have. */
typedef struct key {
    const char *name;
    int64_t *integer; /* where it goes, or NULL: checked only */
    double *real;
    bool *boolean;
    const json_t **section;
    int64_t least, most;
    bool needed;
    bool found;
} key;

static mm_status read_key(const char *where, const char *section,
                          const json_t *value, key *k)
{
    if (k->section) {
        if (!json_is_object(value))
            return mm_fail(MM_E_FORMAT, "%s: %s%s is not an object", where,
                           section, k->name);
        *k->section = value;
    } else if (k->boolean) {
        if (!json_is_boolean(value))
            return mm_fail(MM_E_FORMAT, "%s: %s%s is not true or false", where,
                           section, k->name);
        *k->boolean = json_is_true(value);
    } else {
        double number = json_number_value(value);
        if (!json_is_number(value) || (k->integer && !json_is_integer(value)) ||
            !(number >= (double)k->least && number <= (double)k->most))
            return mm_fail(MM_E_FORMAT,
                           "%s: %s%s must be a%s number from %lld to %lld",
                           where, section, k->name, k->integer ? " whole" : "",
                           (long long)k->least, (long long)k->most);
        if (k->integer)
            *k->integer = json_integer_value(value);
        else
            *k->real = number;
    }
    k->found = true;
    return MM_OK;
}

static mm_status read_section(const char *where, const char *section,
                              const json_t *object, key *keys, int n_keys)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        int i = 0;
        while (i < n_keys && strcmp(keys[i].name, name) != 0)
            i++;
        if (i == n_keys) {
            const char *names[16];
            for (int j = 0; j < n_keys; j++)
                names[j] = keys[j].name;
            mm_names_unknown("key", name, names, n_keys);
            return mm_fail(MM_E_ARG, "%s: %s%s%s", where, section,
                           section[0] ? " " : "", mm_fail_message());
        }
        MM_TRY(read_key(where, section, value, &keys[i]));
    }
    for (int i = 0; i < n_keys; i++)
        if (keys[i].needed && !keys[i].found)
            return mm_fail(MM_E_FORMAT, "%s: %s%s is missing", where, section,
                           keys[i].name);
    return MM_OK;
}

static mm_status read_config(const char *where, const json_t *root,
                             mm_model_config *c)
{
    enum { MOST = 1 << 20 };
    bool quick_gelu = false;
    const json_t *vision = NULL, *text = NULL;
    int64_t ignored;
    c->head_width = 64;
    c->mlp_ratio = 4.0;
    key top[] = {
        {"embed_dim", &c->embed_dim, .least = 1, .most = MOST, .needed = true},
        {"quick_gelu", .boolean = &quick_gelu},
        {"vision_cfg", .section = &vision, .needed = true},
        {"text_cfg", .section = &text},
    };
    key vision_keys[] = {
        {"image_size", &c->image_size, .least = 1, .most = 16384,
         .needed = true},
        {"patch_size", &c->patch_size, .least = 1, .most = 16384,
         .needed = true},
        {"width", &c->width, .least = 1, .most = MOST, .needed = true},
        {"layers", &c->n_layers, .least = 1, .most = 1024, .needed = true},
        {"head_width", &c->head_width, .least = 1, .most = MOST},
        {"mlp_ratio", .real = &c->mlp_ratio, .least = 0, .most = 1024},
    };
    key text_keys[] = {
        {"context_length", &ignored, .least = 1, .most = MOST},
        {"vocab_size", &ignored, .least = 1, .most = INT32_MAX},
        {"width", &ignored, .least = 1, .most = MOST},
        {"heads", &ignored, .least = 1, .most = MOST},
        {"layers", &ignored, .least = 1, .most = 1024},
    };
    if (!json_is_object(root))
        return mm_fail(MM_E_FORMAT, "%s: not a JSON object", where);
    MM_TRY(read_section(where, "", root, top, sizeof top / sizeof *top));
    MM_TRY(read_section(where, "vision_cfg.", vision, vision_keys,
                        sizeof vision_keys / sizeof *vision_keys));
    if (text)
        MM_TRY(read_section(where, "text_cfg.", text, text_keys,
                            sizeof text_keys / sizeof *text_keys));
    c->activation = quick_gelu ? MM_QUICK_GELU : MM_GELU;
    if (c->width % c->head_width)
        return mm_fail(MM_E_FORMAT,
                       "%s: width %lld is no multiple of head_width %lld",
                       where, (long long)c->width, (long long)c->head_width);
    if (c->image_size < c->patch_size)
        return mm_fail(
            MM_E_FORMAT, "%s: image_size %lld is less than patch_size %lld",
            where, (long long)c->image_size, (long long)c->patch_size);
    c->n_heads = c->width / c->head_width;
    int64_t grid = c->image_size / c->patch_size;
    c->n_tokens = grid * grid + 1;
    c->mlp_width = (int64_t)((double)c->width * c->mlp_ratio);
    if (c->mlp_width < 1)
        return mm_fail(MM_E_FORMAT, "%s: mlp_ratio leaves no MLP", where);
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

static mm_status check_same(const mm_model_config *typed,
                            const mm_model_config *recorded, const char *path)
{
    const struct {
        const char *name;
        int64_t typed, recorded;
    } sizes[] = {
        {"embed_dim", typed->embed_dim, recorded->embed_dim},
        {"image_size", typed->image_size, recorded->image_size},
        {"patch_size", typed->patch_size, recorded->patch_size},
        {"width", typed->width, recorded->width},
        {"layers", typed->n_layers, recorded->n_layers},
        {"head_width", typed->head_width, recorded->head_width},
        {"MLP width", typed->mlp_width, recorded->mlp_width},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].typed != sizes[i].recorded)
            return mm_fail(MM_E_ARG,
                           "--model has %s %lld, but %s holds a model with "
                           "%lld; leave --model out to follow the file",
                           sizes[i].name, (long long)sizes[i].typed, path,
                           (long long)sizes[i].recorded);
    return MM_OK;
}

mm_status mm_model_config_choose(const char *name, const char *recorded,
                                 const char *path, mm_log *log,
                                 mm_model_config *config)
{
    if (!name && !recorded)
        return mm_fail(MM_E_ARG,
                       "--model is needed: %s does not say what model it holds",
                       path ? path : "no file of weights");
    if (!name)
        return mm_model_config_parse(recorded, path, config);
    MM_TRY(mm_model_config_find(name, config));
    if (!recorded)
        return MM_OK;
    mm_model_config file = {0};
    mm_status st = mm_model_config_parse(recorded, path, &file);
    if (st == MM_OK)
        st = check_same(config, &file, path);
    if (st != MM_OK) {
        mm_model_config_clear(&file);
        return st;
    }
    if (file.activation != config->activation)
        mm_log_warn(log, "%s was made with %s; following the file, not --model",
                    path,
                    file.activation == MM_QUICK_GELU ? "QuickGELU" : "GELU");
    mm_model_config_clear(config);
    *config = file;
    return MM_OK;
}

void mm_model_config_clear(mm_model_config *config)
{
    free(config->json);
    *config = (mm_model_config){0};
}
