/* A model on the host: its configuration chosen, its weights read from a file
 * or drawn at random. */

#include "src/model/model.h"

#include "comm/check_same.h"
#include "io/weights/weights.h"
#include "src/model/config_files.h"
#include "src/model/params.h"
#include "src/model/read_weights.h"

#include <stdlib.h>

/* OpenAI's models have QuickGELU, whatever --model says. */
static mm_status follow_openai(mm_log *log, const char *path,
                               mm_model_config *config)
{
    char *json = NULL;
    if (config->image.activation == MM_QUICK_GELU)
        return MM_OK;
    mm_log_warn(log,
                "%s has the constants of OpenAI's files: taken as a model "
                "with QuickGELU",
                path);
    config->image.activation = config->text.activation = MM_QUICK_GELU;
    MM_TRY(mm_model_config_write(config, &json));
    free(config->json);
    config->json = json;
    return MM_OK;
}

static mm_status choose_config(mm_log *log, const char *name, const char *path,
                               mm_model_config *config)
{
    if (!path)
        return mm_model_config_choose(name, NULL, NULL, log, config);
    mm_weights *file = NULL;
    MM_TRY(mm_weights_open(path, &file));
    mm_status st =
        mm_model_config_choose(name, mm_weights_model(file), path, log, config);
    if (st == MM_OK && !mm_weights_model(file) &&
        mm_tensor_table_find(mm_weights_table(file), "input_resolution") >= 0)
        st = follow_openai(log, path, config);
    mm_weights_close(&file);
    return st;
}

/** A checkpoint of the image tower alone is the usual reason. */
static mm_status check_text_tower(const char *path,
                                  const mm_tensor_table *wanted)
{
    mm_weights *file = NULL;
    MM_TRY(mm_weights_open(path, &file));
    mm_status st = MM_OK;
    for (int i = 0; st == MM_OK && i < wanted->n_tensors; i++)
        if (mm_tensor_table_find(mm_weights_table(file),
                                 wanted->tensors[i].name) < 0)
            st = mm_fail(
                MM_E_FORMAT,
                "%s does not contain the tensor %s: zero-shot heads need "
                "the text tower, so load a whole CLIP",
                path, wanted->tensors[i].name);
    mm_weights_close(&file);
    return st;
}

static mm_status make_text_table(const char *path, mm_model *model)
{
    if (!model->config.has_text)
        return mm_fail(MM_E_ARG,
                       "no text_cfg in the model configuration%s%s: zero-shot "
                       "heads need the text tower; give --model",
                       path ? " of " : "", path ? path : "");
    MM_TRY(mm_params_text_table(&model->config, &model->table));
    return path ? check_text_tower(path, &model->table) : MM_OK;
}

static mm_status open_local(mm_log *log, const char *name, const char *path,
                            mm_tower tower, uint64_t seed, mm_model *model)
{
    MM_TRY(choose_config(log, name, path, &model->config));
    MM_TRY(tower == MM_TEXT_TOWER
               ? make_text_table(path, model)
               : mm_params_table(&model->config, &model->table));
    model->theta = malloc((size_t)model->table.n_elems * sizeof *model->theta);
    if (!model->theta)
        return mm_fail(MM_E_MEMORY, "no memory for %lld weights",
                       (long long)model->table.n_elems);
    if (path)
        return mm_model_read_weights(log, path, model);
    mm_params_randomize(&model->config, &model->table, seed, model->theta);
    return MM_OK;
}

static mm_status open_tower(mm_comm *comm, mm_log *log, const char *name,
                            const char *path, mm_tower tower, uint64_t seed,
                            mm_model *model)
{
    mm_status st =
        mm_comm_agree(comm, open_local(log, name, path, tower, seed, model));
    if (st != MM_OK)
        mm_model_clear(model);
    return st;
}

mm_status mm_model_init(mm_comm *comm, mm_log *log, const char *name,
                        const char *path, uint64_t seed, mm_model *model)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(name), MM_SAME_INT(seed)));
    return open_tower(comm, log, name, path, MM_IMAGE_TOWER, seed, model);
}

mm_status mm_model_init_text(mm_comm *comm, mm_log *log, const char *name,
                             const char *path, mm_model *model)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(name)));
    return open_tower(comm, log, name, path, MM_TEXT_TOWER, 0, model);
}

void mm_model_clear(mm_model *model)
{
    mm_model_config_clear(&model->config);
    mm_tensor_table_clear(&model->table);
    free(model->theta);
    model->theta = NULL;
}
