/* Built-in model configurations, and the choice between --model and what a file
 * of weights records. */

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

static const char quickgelu_suffix[] = "-quickgelu";

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
                 quickgelu_suffix);
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
        if (!name[length] || strcmp(name + length, quickgelu_suffix) == 0)
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

/* ---- what the user typed, and what the file says ------------------------ */

/** One size under both names. */
typedef struct size_pair {
    const char *name;
    int64_t typed, recorded;
} size_pair;

static mm_status check_sizes(const size_pair *sizes, int n, const char *path)
{
    for (int i = 0; i < n; i++)
        if (sizes[i].typed != sizes[i].recorded)
            return mm_fail(MM_E_ARG,
                           "--model has %s %lld, but %s holds a model with "
                           "%lld; leave --model out to follow the file",
                           sizes[i].name, (long long)sizes[i].typed, path,
                           (long long)sizes[i].recorded);
    return MM_OK;
}

static mm_status check_same(const mm_model_config *typed,
                            const mm_model_config *recorded, const char *path)
{
    const mm_tower_config *a = &typed->image, *b = &recorded->image;
    const size_pair image[] = {
        {"embed_dim", typed->embed_dim, recorded->embed_dim},
        {"patch_size", typed->patch_size, recorded->patch_size},
        {"width", a->width, b->width},
        {"layers", a->n_layers, b->n_layers},
        {"head_width", a->width / a->n_heads, b->width / b->n_heads},
        {"MLP width", a->mlp_width, b->mlp_width},
    };
    MM_TRY(check_sizes(image, sizeof image / sizeof *image, path));
    if (!typed->has_text || !recorded->has_text)
        return MM_OK;
    a = &typed->text;
    b = &recorded->text;
    const size_pair text[] = {
        {"context_length", a->n_tokens, b->n_tokens},
        {"vocab_size", typed->vocab_size, recorded->vocab_size},
        {"text width", a->width, b->width},
        {"text heads", a->n_heads, b->n_heads},
        {"text layers", a->n_layers, b->n_layers},
        {"text MLP width", a->mlp_width, b->mlp_width},
    };
    return check_sizes(text, sizeof text / sizeof *text, path);
}

/* Adds to the file's JSON what the typed name gives: a text tower where the
 * file has none, and the size of images. */
static int merge_json(json_t *file, const json_t *typed)
{
    json_t *vision = json_object_get(file, "vision_cfg");
    const json_t *typed_vision = json_object_get(typed, "vision_cfg");
    json_t *text = json_object_get(typed, "text_cfg");
    if (text && !json_object_get(file, "text_cfg") &&
        json_object_set(file, "text_cfg", text))
        return -1;
    return json_object_set(vision, "image_size",
                           json_object_get(typed_vision, "image_size"));
}

/** The file's configuration with what was typed beyond it. */
static mm_status merge_typed(mm_model_config *file,
                             const mm_model_config *typed, const char *path)
{
    json_t *root = json_loads(file->json, 0, NULL);
    json_t *from = json_loads(typed->json, 0, NULL);
    bool made = root && from && merge_json(root, from) == 0;
    char *text = made ? json_dumps(root, 0) : NULL;
    mm_model_config both = {0};
    mm_status st =
        text ? mm_model_config_parse(text, path, &both)
             : mm_fail(MM_E_MEMORY, "no memory for a model configuration");
    free(text);
    json_decref(from);
    json_decref(root);
    if (st == MM_OK) {
        mm_model_config_clear(file);
        *file = both;
    }
    return st;
}

mm_status mm_model_config_choose(const char *name, const char *recorded,
                                 const char *path, mm_log *log,
                                 mm_model_config *config)
{
    if (!name && !recorded)
        return mm_fail(
            MM_E_ARG,
            "--model is required: %s does not say what model it holds",
            path ? path : "no weights file");
    if (!name)
        return mm_model_config_parse(recorded, path, config);
    MM_TRY(mm_model_config_find(name, config));
    if (!recorded)
        return MM_OK;
    mm_model_config file = {0};
    mm_status st = mm_model_config_parse(recorded, path, &file);
    if (st == MM_OK)
        st = check_same(config, &file, path);
    if (st == MM_OK)
        st = merge_typed(&file, config, path);
    if (st != MM_OK) {
        mm_model_config_clear(&file);
        return st;
    }
    mm_activation activation = file.image.activation;
    if (activation != config->image.activation)
        mm_log_warn(log, "%s was made with %s; following the file, not --model",
                    path, activation == MM_QUICK_GELU ? "QuickGELU" : "GELU");
    mm_model_config_clear(config);
    *config = file;
    return MM_OK;
}

void mm_model_config_clear(mm_model_config *config)
{
    free(config->json);
    *config = (mm_model_config){0};
}
