#include "src/model/model.h"

#include "io/weights.h"
#include "src/model/params.h"

#include <stdlib.h>

static mm_status choose_config(mm_log *log, const char *name, const char *path,
                               mm_model_config *config)
{
    if (!path)
        return mm_model_config_choose(name, NULL, NULL, log, config);
    mm_weights *file = NULL;
    MM_TRY(mm_weights_open(path, &file));
    mm_status st =
        mm_model_config_choose(name, mm_weights_model(file), path, log, config);
    mm_weights_close(&file);
    return st;
}

static mm_status open_local(mm_log *log, const char *name, const char *path,
                            uint64_t seed, mm_model *model)
{
    MM_TRY(choose_config(log, name, path, &model->config));
    MM_TRY(mm_params_table(&model->config, &model->table));
    model->theta = malloc((size_t)model->table.n_elems * sizeof *model->theta);
    if (!model->theta)
        return mm_fail(MM_E_MEMORY, "no memory for %lld weights",
                       (long long)model->table.n_elems);
    if (path)
        return mm_weights_load(path, &model->table, model->theta);
    mm_params_init(&model->config, &model->table, seed, model->theta);
    return MM_OK;
}

mm_status mm_model_open(mm_comm *comm, mm_log *log, const char *name,
                        const char *path, uint64_t seed, mm_model *model)
{
    mm_status st =
        mm_comm_agree(comm, open_local(log, name, path, seed, model));
    if (st != MM_OK)
        mm_model_clear(model);
    return st;
}

void mm_model_clear(mm_model *model)
{
    mm_model_config_clear(&model->config);
    mm_tensor_table_clear(&model->table);
    free(model->theta);
    model->theta = NULL;
}
