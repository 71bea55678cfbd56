/* Which tensors of the inputs make each tensor of the output; missing,
 * unexpected and misshapen tensors are listed in one message. */

#include "src/convert/convert_plan.h"

#include "src/model/params.h"
#include "src/model/positions.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a list of mismatches in one line ------------------------------------ */

enum { NAMED = 4, MISMATCH_BYTES = 800 };

typedef struct mismatch {
    const char *what;
    char text[MISMATCH_BYTES];
    size_t used;
    int n;
} mismatch;

typedef struct mismatches {
    mismatch missing, unexpected, shape;
} mismatches;

static void note(mismatch *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(mismatch *c, const char *format, ...)
{
    if (c->n++ >= NAMED)
        return;
    va_list args;
    va_start(args, format);
    c->used += (size_t)snprintf(c->text + c->used, sizeof c->text - c->used,
                                c->n > 1 ? ", " : "");
    if (c->used < sizeof c->text)
        c->used += (size_t)vsnprintf(c->text + c->used,
                                     sizeof c->text - c->used, format, args);
    if (c->used >= sizeof c->text)
        c->used = sizeof c->text - 1;
    va_end(args);
}

static size_t add_mismatch(const mismatch *c, char *text, size_t n_bytes,
                           size_t used)
{
    if (c->n == 0 || used >= n_bytes)
        return used;
    used += (size_t)snprintf(text + used, n_bytes - used, "; %s: %.300s",
                             c->what, c->text);
    if (c->n > NAMED && used < n_bytes)
        used += (size_t)snprintf(text + used, n_bytes - used, " and %d more",
                                 c->n - NAMED);
    return used;
}

static mm_status report(const mismatches *c, const char *path)
{
    char text[3 * MISMATCH_BYTES] = "";
    size_t used = add_mismatch(&c->missing, text, sizeof text, 0);
    used = add_mismatch(&c->unexpected, text, sizeof text, used);
    add_mismatch(&c->shape, text, sizeof text, used);
    if (!text[0])
        return MM_OK;
    return mm_fail(MM_E_FORMAT, "%s: %s", path, text + 2);
}

/* ---- where our tensors come from --------------------------------------- */

/** The shape that a stored part must have. */
static mm_tensor part_shape(const mm_tensor *ours, const mm_stored *stored)
{
    mm_tensor part = *ours;
    if (stored->transposed) {
        part.shape[0] = ours->shape[1];
        part.shape[1] = ours->shape[0];
    } else if (part.n_dims) {
        part.shape[0] /= stored->n_parts;
    }
    return part;
}

/* A single number may have the shape [] or [1]. */
static bool shape_fits(const mm_tensor *have, const mm_tensor *want)
{
    return mm_tensor_same_shape(have, want) ||
           (want->n_dims == 0 && have->n_dims == 1 && have->shape[0] == 1);
}

static void check_shape(const mm_convert_source *source,
                        const mm_stored *stored, const mm_tensor *ours,
                        mismatches *c)
{
    mm_tensor want = part_shape(ours, stored);
    for (int i = 0; i < stored->n_parts; i++) {
        const mm_tensor *have =
            &mm_weights_table(source->weights)->tensors[stored->tensors[i]];
        if (shape_fits(have, &want))
            continue;
        char has[192], needs[192];
        mm_tensor_shape_text(have, has);
        mm_tensor_shape_text(&want, needs);
        note(&c->shape, "%.100s %.60s, not %.60s", have->name, has, needs);
    }
}

/** Our tensors as the inputs must hold them. */
static mm_status make_table(const mm_convert_inputs *inputs,
                            const mm_convert_model *model,
                            mm_tensor_table *table)
{
    if (model->stored.has_text)
        return mm_params_clip_table(&model->stored, table);
    MM_TRY(mm_params_table(&model->stored, table));
    mm_stored stored;
    int source;
    if (!mm_convert_find(inputs, "logit_scale", &source, &stored, NULL))
        return MM_OK;
    return mm_tensor_table_add(table, "logit_scale", 0, NULL);
}

static mm_status find_origins(const mm_convert_inputs *inputs,
                              mm_convert_plan *plan, mismatches *c)
{
    plan->origins = calloc((size_t)plan->ours.n_tensors, sizeof *plan->origins);
    if (!plan->origins)
        return mm_fail(MM_E_MEMORY, "no memory for the plan of a conversion");
    for (int i = 0; i < plan->ours.n_tensors; i++) {
        const mm_tensor *ours = &plan->ours.tensors[i];
        mm_convert_origin *origin = &plan->origins[i];
        char missing[MM_NAME_BYTES];
        if (mm_convert_find(inputs, ours->name, &origin->source,
                            &origin->stored, missing))
            check_shape(&inputs->sources[origin->source], &origin->stored, ours,
                        c);
        else
            note(&c->missing, "%.120s%.120s", inputs->sources[0].prefix,
                 missing);
    }
    return MM_OK;
}

/* What the authors' programs keep of a text tower whose blocks they drop. */
static bool is_rest_of_text(const mm_convert_source *source, int tensor)
{
    static const char *const rest[] = {
        "token_embedding.weight", "positional_embedding", "ln_final.weight",
        "ln_final.bias", "text_projection"};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        mm_stored stored;
        if (mm_convert_source_find(source, rest[i], &stored, NULL) &&
            stored.tensors[0] == tensor)
            return !source->has_text;
    }
    return false;
}

/* Tensors of a source that are none of ours. */
static mm_status find_unexpected(const mm_convert_source *source,
                                 const mm_convert_plan *plan, mm_log *log,
                                 mismatches *c)
{
    int n_tensors = mm_weights_table(source->weights)->n_tensors;
    int n_left_out = 0;
    bool *ours = calloc((size_t)n_tensors, sizeof *ours);
    if (!ours)
        return mm_fail(MM_E_MEMORY, "no memory for the plan of a conversion");
    for (int i = 0; i < plan->ours.n_tensors; i++) {
        mm_stored stored;
        if (mm_convert_source_find(source, plan->ours.tensors[i].name, &stored,
                                   NULL))
            for (int part = 0; part < stored.n_parts; part++)
                ours[stored.tensors[part]] = true;
    }
    for (int i = 0; i < n_tensors; i++) {
        const char *name = mm_weights_table(source->weights)->tensors[i].name;
        if (ours[i] || mm_naming_is_constant(name))
            continue;
        if (is_rest_of_text(source, i))
            n_left_out++;
        else
            note(&c->unexpected, "%.200s", name);
    }
    free(ours);
    if (n_left_out)
        mm_log_line(log,
                    "%s has no text tower, but %d tensor%s of one, which %s "
                    "left out",
                    source->path, n_left_out, n_left_out > 1 ? "s" : "",
                    n_left_out > 1 ? "are" : "is");
    return MM_OK;
}

/* The second file must be of the same model also where the first has it all. */
static void check_second(const mm_convert_source *second,
                         const mm_convert_plan *plan, mismatches *c)
{
    for (int i = 0; i < plan->ours.n_tensors; i++) {
        mm_stored stored;
        if (mm_convert_source_find(second, plan->ours.tensors[i].name, &stored,
                                   NULL))
            check_shape(second, &stored, &plan->ours.tensors[i], c);
    }
}

static mm_status match(const mm_convert_inputs *inputs, mm_convert_plan *plan,
                       mm_log *log)
{
    const mm_convert_source *first = &inputs->sources[0];
    mismatches c = {{.what = "missing tensors"},
                    {.what = "unexpected tensors"},
                    {.what = "tensors of another shape"}};
    MM_TRY(find_origins(inputs, plan, &c));
    MM_TRY(find_unexpected(first, plan, log, &c));
    MM_TRY(report(&c, first->path));
    if (inputs->n_sources < 2)
        return MM_OK;
    check_second(&inputs->sources[1], plan, &c);
    return report(&c, inputs->sources[1].path);
}

/* ---- another grid ------------------------------------------------------ */

static mm_status resize(const mm_convert_inputs *inputs,
                        const mm_convert_model *model, mm_log *log,
                        mm_convert_plan *plan)
{
    mm_convert_model resized = *model;
    int64_t from = model->stored.image.n_tokens;
    int64_t to = model->config.image.n_tokens;
    if (from == to)
        return MM_OK;
    mm_positions_log(log, from, to);
    resized.stored.image.n_tokens = to;
    mm_tensor_table_clear(&plan->ours);
    MM_TRY(make_table(inputs, &resized, &plan->ours));
    plan->origins[mm_tensor_table_find(&plan->ours, MM_POSITIONS)].resized =
        true;
    return MM_OK;
}

/* ---- the output -------------------------------------------------------- */

static mm_status add_target(const mm_naming *names, int i,
                            mm_convert_plan *plan)
{
    const mm_tensor *ours = &plan->ours.tensors[i];
    mm_name_part parts[MM_MAX_PARTS];
    mm_naming_parts(names, ours->name, parts);
    mm_stored layout = {.n_parts = parts[0].n_parts,
                        .transposed = parts[0].transposed};
    mm_tensor shape = part_shape(ours, &layout);
    for (int part = 0; part < layout.n_parts; part++) {
        plan->targets[plan->output.n_tensors] = (mm_convert_target){
            .ours = i,
            .first_elem = part * (ours->n_elems / layout.n_parts),
            .transposed = layout.transposed};
        MM_TRY(mm_tensor_table_add(&plan->output, parts[part].name,
                                   shape.n_dims, shape.shape));
    }
    return MM_OK;
}

static mm_status make_targets(const mm_naming *names, mm_convert_plan *plan)
{
    size_t most = (size_t)plan->ours.n_tensors * MM_MAX_PARTS;
    plan->targets = calloc(most, sizeof *plan->targets);
    if (!plan->targets)
        return mm_fail(MM_E_MEMORY, "no memory for the plan of a conversion");
    for (int i = 0; i < plan->ours.n_tensors; i++)
        MM_TRY(add_target(names, i, plan));
    return MM_OK;
}

mm_status mm_convert_plan_init(const mm_convert_inputs *inputs,
                               const mm_convert_model *model,
                               const mm_naming *names, mm_log *log,
                               mm_convert_plan *plan)
{
    plan->has_text = model->stored.has_text;
    MM_TRY(make_table(inputs, model, &plan->ours));
    MM_TRY(match(inputs, plan, log));
    MM_TRY(resize(inputs, model, log, plan));
    return make_targets(names, plan);
}

void mm_convert_plan_clear(mm_convert_plan *plan)
{
    mm_tensor_table_clear(&plan->ours);
    mm_tensor_table_clear(&plan->output);
    free(plan->origins);
    free(plan->targets);
    *plan = (mm_convert_plan){0};
}

/* The first tensor of ours at or behind an element; both tables have the same
 * elements in the same order. */
static int64_t next_tensor(const mm_tensor_table *ours, int64_t elem)
{
    if (elem >= ours->n_elems)
        return ours->n_elems;
    const mm_tensor *tensor = &ours->tensors[mm_tensor_table_at(ours, elem)];
    return tensor->off_elems == elem ? elem
                                     : tensor->off_elems + tensor->n_elems;
}

mm_range mm_convert_plan_range(const mm_convert_plan *plan, int rank,
                               int n_ranks)
{
    mm_range equal = mm_partition(plan->ours.n_elems, rank, n_ranks);
    mm_range own = {next_tensor(&plan->ours, equal.lo),
                    next_tensor(&plan->ours, equal.hi)};
    return own;
}
