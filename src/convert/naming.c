/* Tables of tensor names, one for each program that saves CLIP's weights, and
 * recognising which of them a file follows. */

#include "src/convert/naming.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/**
 * One line of a naming. In patterns '#' stands for a block's number and '*' for
 * the rest of the name, the same on both sides; the first line that fits a name
 * of ours counts, and of a divided tensor the lines of all its parts.
 */
typedef struct row {
    const char *ours, *theirs;
    bool transposed;
    int n_parts; /* 0: the whole */
} row;

struct mm_naming {
    const char *name, *title;
    const row *rows;
    bool is_huggingface;
    /* Names of ours that a file must hold, under theirs, to be of this naming:
     * the first tells its prefix, the second may be NULL. */
    const char *anchors[2];
};

static const row same_rows[] = {{"*", "*", false, 0}};

static const row custom_text_rows[] = {
    {"visual.*", "visual.*", false, 0},
    {"logit_scale", "logit_scale", false, 0},
    {"*", "text.*", false, 0},
};

#define HUGGINGFACE_BLOCKS(ours, theirs)                                      \
    {ours "ln_1.*", theirs "layer_norm1.*", false, 0},                        \
        {ours "ln_2.*", theirs "layer_norm2.*", false, 0},                    \
        {ours "attn.in_proj_weight", theirs "self_attn.q_proj.weight", false, \
         3},                                                                  \
        {ours "attn.in_proj_weight", theirs "self_attn.k_proj.weight", false, \
         3},                                                                  \
        {ours "attn.in_proj_weight", theirs "self_attn.v_proj.weight", false, \
         3},                                                                  \
        {ours "attn.in_proj_bias", theirs "self_attn.q_proj.bias", false, 3}, \
        {ours "attn.in_proj_bias", theirs "self_attn.k_proj.bias", false, 3}, \
        {ours "attn.in_proj_bias", theirs "self_attn.v_proj.bias", false, 3}, \
        {ours "attn.out_proj.*", theirs "self_attn.out_proj.*", false, 0},    \
        {ours "mlp.c_fc.*", theirs "mlp.fc1.*", false, 0},                    \
    {                                                                         \
        ours "mlp.c_proj.*", theirs "mlp.fc2.*", false, 0                     \
    }

/* The spelling pre_layrnorm is theirs. */
#define HUGGINGFACE_IMAGE(theirs)                                              \
    {"visual.class_embedding", theirs "embeddings.class_embedding", false, 0}, \
        {"visual.positional_embedding",                                        \
         theirs "embeddings.position_embedding.weight", false, 0},             \
        {"visual.conv1.weight", theirs "embeddings.patch_embedding.weight",    \
         false, 0},                                                            \
        {"visual.ln_pre.*", theirs "pre_layrnorm.*", false, 0},                \
        HUGGINGFACE_BLOCKS("visual.transformer.resblocks.#.",                  \
                           theirs "encoder.layers.#."),                        \
        {"visual.ln_post.*", theirs "post_layernorm.*", false, 0},             \
    {                                                                          \
        "visual.proj", "visual_projection.weight", true, 0                     \
    }

static const row huggingface_rows[] = {
    HUGGINGFACE_IMAGE("vision_model."),
    {"token_embedding.weight", "text_model.embeddings.token_embedding.weight",
     false, 0},
    {"positional_embedding", "text_model.embeddings.position_embedding.weight",
     false, 0},
    HUGGINGFACE_BLOCKS("transformer.resblocks.#.",
                       "text_model.encoder.layers.#."),
    {"ln_final.*", "text_model.final_layer_norm.*", false, 0},
    {"text_projection", "text_projection.weight", true, 0},
    {"*", "*", false, 0}, /* logit_scale */
};

/* The image tower alone, as transformers 5 saves a CLIPVisionModel. */
static const row huggingface_vision_rows[] = {
    HUGGINGFACE_IMAGE(""), {"*", "text_model.*", false, 0}, /* nothing there */
};

enum {
    OPEN_CLIP,
    HUGGINGFACE,
    HUGGINGFACE_VISION,
    OPENAI,
    CUSTOM_TEXT,
    N_NAMINGS
};

static const mm_naming namings[N_NAMINGS] = {
    [OPEN_CLIP] = {"open_clip",
                   "open_clip",
                   same_rows,
                   false,
                   {"visual.conv1.weight", NULL}},
    [HUGGINGFACE] = {"huggingface",
                     "Hugging Face",
                     huggingface_rows,
                     true,
                     {"visual.conv1.weight", NULL}},
    [HUGGINGFACE_VISION] = {"huggingface_vision",
                            "Hugging Face (image tower)",
                            huggingface_vision_rows,
                            true,
                            {"visual.conv1.weight", "visual.class_embedding"}},
    [OPENAI] =
        {"openai", "OpenAI", same_rows, false, {"visual.conv1.weight", NULL}},
    [CUSTOM_TEXT] = {"custom_text",
                     "open_clip (CustomTextCLIP)",
                     custom_text_rows,
                     false,
                     {"visual.conv1.weight", "ln_final.weight"}},
};

/* The more specific one comes first. OpenAI's names are open_clip's. */
static const mm_naming *const recognized[] = {
    &namings[HUGGINGFACE],
    &namings[HUGGINGFACE_VISION],
    &namings[CUSTOM_TEXT],
    &namings[OPEN_CLIP],
};

/** What a pattern's wildcards stood for. */
typedef struct wildcards {
    char number[24];
    const char *rest;
} wildcards;

static bool match(const char *pattern, const char *name, wildcards *found)
{
    *found = (wildcards){.rest = ""};
    for (; *pattern; pattern++) {
        if (*pattern == '*') {
            found->rest = name;
            return true;
        }
        if (*pattern == '#') {
            size_t n = strspn(name, "0123456789");
            if (n == 0 || n >= sizeof found->number)
                return false;
            memcpy(found->number, name, n);
            found->number[n] = '\0';
            name += n;
        } else if (*pattern != *name++) {
            return false;
        }
    }
    return *name == '\0';
}

static void fill_in(const char *pattern, const wildcards *with,
                    char out[MM_NAME_BYTES])
{
    const char *wild = strpbrk(pattern, "#*");
    if (!wild) {
        snprintf(out, MM_NAME_BYTES, "%s", pattern);
        return;
    }
    snprintf(out, MM_NAME_BYTES, "%.*s%s", (int)(wild - pattern), pattern,
             *wild == '#' ? with->number : with->rest);
    if (*wild == '#') {
        char tail[MM_NAME_BYTES];
        fill_in(wild + 1, with, tail);
        size_t used = strlen(out);
        snprintf(out + used, MM_NAME_BYTES - used, "%s", tail);
    }
}

const mm_naming *mm_naming_find(const char *name)
{
    int i = 0;
    while (i < N_NAMINGS && strcmp(namings[i].name, name) != 0)
        i++;
    MM_ASSERT(i < N_NAMINGS);
    return &namings[i];
}

const char *mm_naming_title(const mm_naming *naming)
{
    return naming->title;
}

bool mm_naming_is_huggingface(const mm_naming *naming)
{
    return naming->is_huggingface;
}

void mm_naming_parts(const mm_naming *naming, const char *ours,
                     mm_name_part parts[MM_MAX_PARTS])
{
    wildcards found;
    const row *r = naming->rows;
    while (!match(r->ours, ours, &found))
        r++;
    int n = r->n_parts ? r->n_parts : 1;
    for (int i = 0; i < n; i++) {
        parts[i].transposed = r[i].transposed;
        parts[i].part = i;
        parts[i].n_parts = n;
        fill_in(r[i].theirs, &found, parts[i].name);
    }
}

/* ---- recognition -------------------------------------------------------- */

/** Models that are not supported, and what their tensors' names contain. */
static const struct {
    const char *in_name, *what;
} other_models[] = {
    {"visual.trunk.", "an image tower of timm's"},
    {"visual.layer1.", "a ResNet image tower"},
    {"visual.attnpool.", "a ResNet image tower"},
    {"vision_model.head.", "a SigLIP model"},
    {"visual.attn_pool.", "a tower with attentional pooling"},
    {"text_decoder.", "a CoCa model"},
    {"text.transformer.encoder.", "a text tower of Hugging Face's"},
    {"text.transformer.embeddings.", "a text tower of Hugging Face's"},
    {"text_model.embeddings.", "a text tower without its image tower"},
};

static mm_status fail_unrecognized(const mm_tensor_table *table,
                                   const char *path)
{
    if (table->n_tensors == 0)
        return mm_fail(MM_E_FORMAT, "%s holds no tensors", path);
    for (size_t s = 0; s < sizeof other_models / sizeof *other_models; s++)
        for (int i = 0; i < table->n_tensors; i++)
            if (strstr(table->tensors[i].name, other_models[s].in_name))
                return mm_fail(MM_E_FORMAT,
                               "%s holds %s (%.100s); only CLIP's Vision "
                               "Transformer is supported",
                               path, other_models[s].what,
                               table->tensors[i].name);
    return mm_fail(MM_E_FORMAT,
                   "%s holds no CLIP Vision Transformer under open_clip's, "
                   "OpenAI's or Hugging Face's names: no tensor is called "
                   "visual.conv1.weight; the first one is %.100s",
                   path, table->tensors[0].name);
}

/** The prefix of the first tensor whose name ends in `name`, at its start or
 * after a dot. */
static bool find_prefix(const mm_tensor_table *table, const char *name,
                        char prefix[MM_NAME_BYTES])
{
    size_t n = strlen(name);
    for (int i = 0; i < table->n_tensors; i++) {
        const char *whole = table->tensors[i].name;
        size_t length = strlen(whole);
        if (length < n || strcmp(whole + length - n, name) != 0)
            continue;
        size_t before = length - n;
        if (before >= MM_NAME_BYTES || (before && whole[before - 1] != '.'))
            continue;
        memcpy(prefix, whole, before);
        prefix[before] = '\0';
        return true;
    }
    return false;
}

static bool fits(const mm_naming *naming, const mm_tensor_table *table,
                 char prefix[MM_NAME_BYTES])
{
    mm_name_part parts[MM_MAX_PARTS];
    mm_naming_parts(naming, naming->anchors[0], parts);
    if (!find_prefix(table, parts[0].name, prefix))
        return false;
    if (!naming->anchors[1])
        return true;
    char second[2 * MM_NAME_BYTES];
    mm_naming_parts(naming, naming->anchors[1], parts);
    snprintf(second, sizeof second, "%s%s", prefix, parts[0].name);
    return mm_tensor_table_find(table, second) >= 0;
}

mm_status mm_naming_recognize(const mm_tensor_table *table, const char *path,
                              const mm_naming **naming,
                              char prefix[MM_NAME_BYTES])
{
    for (size_t i = 0; i < sizeof recognized / sizeof *recognized; i++)
        if (fits(recognized[i], table, prefix)) {
            *naming = recognized[i];
            return MM_OK;
        }
    return fail_unrecognized(table, path);
}

bool mm_naming_is_constant(const char *name)
{
    static const char *const constants[] = {
        "attn_mask",      "position_ids", "input_resolution",
        "context_length", "vocab_size",   "n_averaged"};
    const char *dot = strrchr(name, '.');
    const char *last = dot ? dot + 1 : name;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (strcmp(last, constants[i]) == 0)
            return true;
    return false;
}
