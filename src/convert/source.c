/* One input of a conversion: its weights, its naming, and the configuration
 * recorded in it or beside it. */

#include "src/convert/source.h"

#include "io/file.h"
#include "src/model/config_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CONFIG_BYTES = 1 << 20, MOST_LAYERS = 1024 };

const char *mm_convert_source_bare_name(const mm_convert_source *source,
                                        int tensor)
{
    const char *name = mm_weights_table(source->weights)->tensors[tensor].name;
    size_t n = strlen(source->prefix);
    return strncmp(name, source->prefix, n) == 0 ? name + n : NULL;
}

/** A tensor by its name without the prefix, or -1. */
static int find_bare(const mm_convert_source *source, const char *name)
{
    char whole[2 * MM_NAME_BYTES];
    snprintf(whole, sizeof whole, "%s%.*s", source->prefix, MM_NAME_BYTES - 1,
             name);
    return mm_tensor_table_find(mm_weights_table(source->weights), whole);
}

bool mm_convert_source_find(const mm_convert_source *source, const char *ours,
                            mm_stored *stored, char missing[MM_NAME_BYTES])
{
    mm_name_part parts[MM_MAX_PARTS];
    mm_naming_parts(source->naming, ours, parts);
    stored->n_parts = parts[0].n_parts;
    stored->transposed = parts[0].transposed;
    for (int i = 0; i < stored->n_parts; i++) {
        stored->tensors[i] = find_bare(source, parts[i].name);
        if (stored->tensors[i] < 0) {
            if (missing)
                snprintf(missing, MM_NAME_BYTES, "%.*s", MM_NAME_BYTES - 1,
                         parts[i].name);
            return false;
        }
    }
    return true;
}

int64_t mm_convert_source_extent(const mm_convert_source *source,
                                 const mm_stored *stored, int dim, int n_dims)
{
    const mm_tensor *tensor =
        &mm_weights_table(source->weights)->tensors[stored->tensors[0]];
    if (tensor->n_dims != n_dims)
        return 0;
    if (stored->transposed)
        return tensor->shape[n_dims - 1 - dim];
    return tensor->shape[dim] * (dim == 0 ? stored->n_parts : 1);
}

int64_t mm_convert_source_n_layers(const mm_convert_source *source,
                                   const char *ours)
{
    mm_name_part parts[MM_MAX_PARTS];
    mm_naming_parts(source->naming, ours, parts);
    const char *number = strstr(parts[0].name, ".0.");
    MM_ASSERT(number);
    size_t n = (size_t)(number + 1 - parts[0].name);
    int64_t n_layers = 0;
    for (int i = 0; i < mm_weights_table(source->weights)->n_tensors; i++) {
        const char *name = mm_convert_source_bare_name(source, i);
        if (!name || strncmp(name, parts[0].name, n) != 0)
            continue;
        char *end;
        long long layer = strtoll(name + n, &end, 10);
        /* A block beyond all models is an unexpected tensor. */
        if (end > name + n && *end == '.' && layer >= n_layers &&
            layer < MOST_LAYERS)
            n_layers = layer + 1;
    }
    return n_layers;
}

/* ---- configuration files beside the weights ------------------------------ */

/** PATH's folder with another file's name; free(). */
static char *beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *other = NULL;
    if (asprintf(&other, "%.*s%s", slash ? (int)(slash + 1 - path) : 0, path,
                 name) < 0)
        return NULL;
    return other;
}

static mm_status no_memory(const mm_convert_source *source)
{
    return mm_fail(MM_E_MEMORY, "%s: no memory to open it", source->path);
}

static mm_status read_config(mm_convert_source *source, const char *text,
                             mm_log *log)
{
    bool other_pixels = false;
    if (mm_naming_is_huggingface(source->naming))
        return mm_config_from_huggingface(text, source->model_path,
                                          &source->model);
    MM_TRY(mm_config_from_open_clip(text, source->model_path, &source->model,
                                    &other_pixels));
    if (other_pixels)
        mm_log_warn(
            log,
            "%s: preprocess_cfg has another mean or deviation of images than "
            "CLIP's, which magmax always uses: accuracy will be lower",
            source->model_path);
    return MM_OK;
}

static mm_status find_config(mm_convert_source *source, mm_log *log)
{
    const char *recorded = mm_weights_model(source->weights);
    if (recorded) {
        source->model = strdup(recorded);
        source->model_path = strdup(source->path);
        return source->model && source->model_path ? MM_OK : no_memory(source);
    }
    source->model_path =
        beside(source->path, mm_naming_is_huggingface(source->naming)
                                 ? "config.json"
                                 : "open_clip_config.json");
    if (!source->model_path)
        return no_memory(source);
    if (!mm_file_exists(source->model_path)) {
        free(source->model_path);
        source->model_path = NULL;
        return MM_OK;
    }
    char *text = NULL;
    MM_TRY(mm_file_read_text(source->model_path, MOST_CONFIG_BYTES, &text));
    mm_status st = read_config(source, text, log);
    free(text);
    return st;
}

mm_status mm_convert_source_open(const char *path, mm_log *log,
                                 mm_convert_source *source)
{
    source->path = path;
    MM_TRY(mm_weights_open(path, &source->weights));
    MM_TRY(mm_naming_recognize(mm_weights_table(source->weights), path,
                               &source->naming, source->prefix));
    source->has_text = mm_convert_source_n_layers(
                           source, "transformer.resblocks.0.ln_1.weight") > 0;
    source->is_openai = find_bare(source, "input_resolution") >= 0;
    return find_config(source, log);
}

void mm_convert_source_close(mm_convert_source *source)
{
    mm_weights_close(&source->weights);
    free(source->model);
    free(source->model_path);
    *source = (mm_convert_source){0};
}
