/* The architecture of the model in the inputs: sizes from the tensors' shapes,
 * the rest from configurations, all of which must agree. */

#include "src/convert/sizes.h"

#include "src/model/config_files.h"
#include "src/model/positions.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Whether one of our tensors belongs to the text tower. */
static bool is_text_tensor(const char *ours)
{
    return strncmp(ours, MM_VISUAL_PREFIX, sizeof MM_VISUAL_PREFIX - 1) != 0 &&
           strcmp(ours, "logit_scale") != 0;
}

bool mm_convert_find(const mm_convert_inputs *inputs, const char *ours,
                     int *source, mm_stored *stored,
                     char missing[MM_NAME_BYTES])
{
    bool is_text = is_text_tensor(ours);
    /* Backwards, so that what is missing is the first file's. */
    bool found = false;
    for (int i = inputs->n_sources; i-- > 0;) {
        const mm_convert_source *s = &inputs->sources[i];
        mm_stored there;
        if ((is_text && !s->has_text) ||
            !mm_convert_source_find(s, ours, &there, missing))
            continue;
        *stored = there;
        *source = i;
        found = true;
    }
    return found;
}

/* ---- sizes from shapes --------------------------------------------------- */

/** Where a size is read off. */
typedef struct gauge {
    const char *ours;
    int dim, n_dims;
    int64_t *size;
} gauge;

static mm_status read_gauge(const mm_convert_inputs *inputs, const gauge *g)
{
    char missing[MM_NAME_BYTES] = "";
    mm_stored stored;
    int source;
    if (!mm_convert_find(inputs, g->ours, &source, &stored, missing))
        return mm_fail(MM_E_FORMAT,
                       "%s does not contain the tensor %s%s, which the model's "
                       "sizes are read from",
                       inputs->sources[0].path, inputs->sources[0].prefix,
                       missing);
    const mm_convert_source *s = &inputs->sources[source];
    *g->size = mm_convert_source_extent(s, &stored, g->dim, g->n_dims);
    if (*g->size < 1 || *g->size > INT32_MAX) {
        const mm_tensor *tensor =
            &mm_weights_table(s->weights)->tensors[stored.tensors[0]];
        char shape[192];
        mm_tensor_shape_text(tensor, shape);
        return mm_fail(MM_E_FORMAT,
                       "%s: tensor %s has the shape %s, which is not CLIP's",
                       s->path, tensor->name, shape);
    }
    return MM_OK;
}

static mm_status read_gauges(const mm_convert_inputs *inputs,
                             const gauge *gauges, int n)
{
    for (int i = 0; i < n; i++)
        MM_TRY(read_gauge(inputs, &gauges[i]));
    return MM_OK;
}

/** The number of heads where they have the usual 64 numbers, else one. */
static int64_t usual_heads(int64_t width)
{
    return width % 64 == 0 ? width / 64 : 1;
}

static int64_t count_layers(const mm_convert_inputs *inputs, const char *ours)
{
    for (int i = 0; i < inputs->n_sources; i++) {
        int64_t n = mm_convert_source_n_layers(&inputs->sources[i], ours);
        if (n > 0)
            return n;
    }
    return 0;
}

static mm_status read_image_sizes(const mm_convert_inputs *inputs,
                                  mm_model_config *c)
{
    mm_tower_config *t = &c->image;
    const gauge gauges[] = {
        {"visual.conv1.weight", 0, 4, &t->width},
        {"visual.conv1.weight", 3, 4, &c->patch_size},
        {"visual.positional_embedding", 0, 2, &t->n_tokens},
        {"visual.proj", 1, 2, &c->embed_dim},
        {"visual.transformer.resblocks.0.mlp.c_fc.weight", 0, 2, &t->mlp_width},
    };
    MM_TRY(read_gauges(inputs, gauges, sizeof gauges / sizeof *gauges));
    t->n_layers =
        count_layers(inputs, "visual.transformer.resblocks.0.ln_1.weight");
    t->n_heads = usual_heads(t->width);
    int64_t grid = mm_positions_grid(t->n_tokens);
    if (grid == 0)
        return mm_fail(MM_E_FORMAT,
                       "%s: %lld positions are not a square of patches and a "
                       "class token",
                       inputs->sources[0].path, (long long)t->n_tokens);
    c->image_size = grid * c->patch_size;
    return MM_OK;
}

static mm_status read_text_sizes(const mm_convert_inputs *inputs,
                                 mm_model_config *c)
{
    mm_tower_config *t = &c->text;
    const gauge gauges[] = {
        {"token_embedding.weight", 0, 2, &c->vocab_size},
        {"token_embedding.weight", 1, 2, &t->width},
        {"positional_embedding", 0, 2, &t->n_tokens},
        {"transformer.resblocks.0.mlp.c_fc.weight", 0, 2, &t->mlp_width},
    };
    MM_TRY(read_gauges(inputs, gauges, sizeof gauges / sizeof *gauges));
    t->n_layers = count_layers(inputs, "transformer.resblocks.0.ln_1.weight");
    t->n_heads = usual_heads(t->width);
    return MM_OK;
}

static mm_status read_sizes(const mm_convert_inputs *inputs, mm_model_config *c)
{
    MM_TRY(read_image_sizes(inputs, c));
    for (int i = 0; i < inputs->n_sources; i++)
        c->has_text |= inputs->sources[i].has_text;
    return c->has_text ? read_text_sizes(inputs, c) : MM_OK;
}

/* ---- what the files and the user say ----------------------------------- */

/** Compare a configuration with the tensors, except for the number of heads,
 * which no shape shows. A size of images that is `typed` may differ: positions
 * can be resized. */
static mm_status check_sizes(const mm_model_config *said, const char *source,
                             const mm_model_config *stored, const char *path,
                             bool typed)
{
    const mm_tower_config *a = &said->image, *b = &stored->image;
    const struct {
        const char *name;
        int64_t said, stored;
        bool is_text;
    } sizes[] = {
        {"embed_dim", said->embed_dim, stored->embed_dim, false},
        {"patch_size", said->patch_size, stored->patch_size, false},
        {"width", a->width, b->width, false},
        {"layers", a->n_layers, b->n_layers, false},
        {"MLP width", a->mlp_width, b->mlp_width, false},
        {"positions", typed ? b->n_tokens : a->n_tokens, b->n_tokens, false},
        {"context_length", said->text.n_tokens, stored->text.n_tokens, true},
        {"vocab_size", said->vocab_size, stored->vocab_size, true},
        {"text width", said->text.width, stored->text.width, true},
        {"text layers", said->text.n_layers, stored->text.n_layers, true},
        {"text MLP width", said->text.mlp_width, stored->text.mlp_width, true},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i].is_text && (!said->has_text || !stored->has_text))
            continue;
        if (sizes[i].said != sizes[i].stored)
            return mm_fail(MM_E_ARG,
                           "%s says %s %lld, but in %s the tensors have %lld",
                           source, sizes[i].name, (long long)sizes[i].said,
                           path, (long long)sizes[i].stored);
    }
    return MM_OK;
}

/** OpenAI's code builds every model so, whatever its sizes. */
static mm_status write_openai(const mm_convert_inputs *inputs,
                              const mm_model_config *stored, mm_log *log,
                              char **model)
{
    if (stored->image.width % 64 || stored->text.width % 64)
        return MM_OK;
    mm_log_line(log,
                "%s has the constants of OpenAI's files: taken as a model with "
                "QuickGELU and heads of 64",
                inputs->sources[0].path);
    mm_model_config openai = *stored;
    openai.image.activation = MM_QUICK_GELU;
    return mm_model_config_write(&openai, model);
}

static mm_status parse_said(const mm_convert_source *source,
                            const mm_model_config *stored,
                            mm_model_config *config)
{
    MM_TRY(mm_model_config_parse(source->model, source->model_path, config));
    return check_sizes(config, source->model_path, stored, source->path, false);
}

/** Each file's configuration must fit its tensors, and both must have the same
 * activation. */
static mm_status check_said(const mm_convert_inputs *inputs,
                            const mm_model_config *stored)
{
    mm_model_config said[2] = {{0}};
    mm_status st = MM_OK;
    for (int i = 0; i < inputs->n_sources && st == MM_OK; i++)
        if (inputs->sources[i].model)
            st = parse_said(&inputs->sources[i], stored, &said[i]);
    if (st == MM_OK && said[0].json && said[1].json &&
        said[0].image.activation != said[1].image.activation)
        st = mm_fail(MM_E_ARG,
                     "%s and %s do not belong together: one was made with "
                     "QuickGELU, the other with GELU",
                     inputs->sources[0].path, inputs->sources[1].path);
    mm_model_config_clear(&said[0]);
    mm_model_config_clear(&said[1]);
    return st;
}

static mm_status no_memory(void)
{
    return mm_fail(MM_E_MEMORY, "no memory for a model configuration");
}

/** A model's JSON, with the text tower of `other` where it has none. */
static mm_status add_text(const char *model, const char *other, char **both)
{
    json_t *root = json_loads(model, 0, NULL);
    json_t *from = other ? json_loads(other, 0, NULL) : NULL;
    json_t *text = json_object_get(from, "text_cfg");
    if (root && text && !json_object_get(root, "text_cfg"))
        json_object_set(root, "text_cfg", text);
    *both = root ? json_dumps(root, 0) : NULL;
    json_decref(from);
    json_decref(root);
    return *both ? MM_OK : no_memory();
}

/** What the files say, as JSON, and which file; NULL where none does. */
static mm_status recorded_model(const mm_convert_inputs *inputs,
                                const mm_model_config *stored, mm_log *log,
                                char **model, const char **path)
{
    const mm_convert_source *first = &inputs->sources[0];
    const mm_convert_source *second = &inputs->sources[1];
    *model = NULL;
    *path = first->path;
    if (first->model || second->model) {
        const mm_convert_source *says = first->model ? first : second;
        *path = says->model_path;
        return add_text(says->model, second->model, model);
    }
    if (first->is_openai)
        return write_openai(inputs, stored, log, model);
    return MM_OK;
}

/* The activation is in no tensor; a guess would go unnoticed. */
static void warn_unknown(const mm_convert_inputs *inputs, mm_log *log)
{
    mm_log_warn(log,
                "%s does not say whether its model has QuickGELU (OpenAI's) or "
                "GELU: no model is recorded, so give --model here or to each "
                "program that uses the weights",
                inputs->sources[0].path);
}

mm_status mm_convert_model_find(const mm_convert_inputs *inputs,
                                const char *name, mm_log *log,
                                mm_convert_model *model)
{
    char *recorded = NULL;
    const char *path;
    mm_status st;
    MM_TRY_GOTO(st, done, read_sizes(inputs, &model->stored));
    MM_TRY_GOTO(st, done, check_said(inputs, &model->stored));
    MM_TRY_GOTO(st, done,
                recorded_model(inputs, &model->stored, log, &recorded, &path));
    if (!name && !recorded) {
        warn_unknown(inputs, log);
        model->config = model->stored;
        goto done;
    }
    MM_TRY_GOTO(
        st, done,
        mm_model_config_choose(name, recorded, path, log, &model->config));
    st = check_sizes(&model->config, "--model", &model->stored,
                     inputs->sources[0].path, true);
done:
    free(recorded);
    return st;
}

void mm_convert_model_clear(mm_convert_model *model)
{
    mm_model_config_clear(&model->config);
    *model = (mm_convert_model){0};
}
