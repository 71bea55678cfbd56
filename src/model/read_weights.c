/* Reading a model's weights from a file, resizing positional embeddings where
 * the file has another grid. */

#include "src/model/read_weights.h"

#include "io/weights/weights.h"
#include "src/model/params.h"
#include "src/model/positions.h"

#include <stdlib.h>

/** Positions in the file for another number of tokens than the model's; 0
 * where they fit, or are none that could be resized. */
static int64_t other_tokens(const mm_weights *file, const mm_tensor *positions)
{
    const mm_tensor_table *table = mm_weights_table(file);
    int at = mm_tensor_table_find(table, MM_POSITIONS);
    const mm_tensor *there = at < 0 ? positions : &table->tensors[at];
    bool resizable = there->n_dims == 2 &&
                     there->shape[0] != positions->shape[0] &&
                     there->shape[1] == positions->shape[1] &&
                     mm_positions_grid(there->shape[0]) > 0;
    return resizable ? there->shape[0] : 0;
}

/* Elsewhere the tensors have other names. */
static mm_status check_names(const mm_weights *file, const char *path)
{
    if (mm_tensor_table_find(mm_weights_table(file), "visual.conv1.weight") >=
        0)
        return MM_OK;
    return mm_fail(
        MM_E_FORMAT,
        "%s does not contain the tensor visual.conv1.weight; magmax_convert "
        "makes a file with open_clip's names from one with others",
        path);
}

/** Read all of `stored`, the table of the file, whose positions are for another
 * grid than the model's. */
static mm_status read_resizing(mm_weights *file, const mm_tensor_table *stored,
                               mm_model *model)
{
    int at = mm_tensor_table_find(stored, MM_POSITIONS);
    const mm_tensor *from = &stored->tensors[at];
    const mm_tensor *to = &model->table.tensors[at];
    int64_t end = from->off_elems + from->n_elems;
    float *rest = model->theta + to->off_elems + to->n_elems;
    float *positions = malloc((size_t)from->n_elems * sizeof *positions);
    mm_status st = MM_OK;
    if (!positions)
        return mm_fail(MM_E_MEMORY, "no memory for positional embeddings");
    MM_TRY_GOTO(st, done, mm_weights_bind(file, stored));
    MM_TRY_GOTO(st, done,
                mm_weights_read(file, 0, from->off_elems, model->theta));
    MM_TRY_GOTO(st, done,
                mm_weights_read(file, from->off_elems, end, positions));
    MM_TRY_GOTO(st, done, mm_weights_read(file, end, stored->n_elems, rest));
    MM_TRY_GOTO(st, done, mm_weights_verify(file, NULL));
    st = mm_positions_resize(positions, mm_positions_grid(from->shape[0]),
                             mm_positions_grid(to->shape[0]), to->shape[1],
                             model->theta + to->off_elems);
done:
    free(positions);
    return st;
}

mm_status mm_model_read_weights(mm_log *log, const char *path, mm_model *model)
{
    mm_weights *file = NULL;
    mm_tensor_table stored = {0};
    mm_model_config config = model->config;
    int at = mm_tensor_table_find(&model->table, MM_POSITIONS);
    mm_status st;
    MM_TRY_GOTO(st, done, mm_weights_open(path, &file));
    if (at >= 0)
        MM_TRY_GOTO(st, done, check_names(file, path));
    int64_t n_tokens =
        at < 0 ? 0 : other_tokens(file, &model->table.tensors[at]);
    if (n_tokens == 0) {
        st = mm_weights_load(path, &model->table, model->theta);
        goto done;
    }
    mm_positions_log(log, n_tokens, config.image.n_tokens);
    config.image.n_tokens = n_tokens;
    MM_TRY_GOTO(st, done, mm_params_table(&config, &stored));
    st = read_resizing(file, &stored, model);
done:
    mm_weights_close(&file);
    mm_tensor_table_clear(&stored);
    return st;
}
