/* A conversion from start to end: check the request, open the inputs, plan, and
 * stream every rank's elements into the output. */

#include "src/convert/convert.h"

#include "comm/check_same.h"
#include "io/weights/weights_writer.h"
#include "src/convert/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements that are read, checked and written while they are in the cache. */
enum { BLOCK_ELEMS = 1 << 18 };

typedef struct engine {
    mm_comm *comm;
    mm_log *log;
    const mm_convert_request *request;
    const mm_naming *names;
    mm_convert_inputs inputs;
    mm_convert_model model;
    mm_convert_plan plan;
    mm_convert_stream *stream;
    mm_range own; /* elements of the output */
    float *block;
    char *provenance;
    mm_weights_writer *output;
} engine;

/* ---- the request ------------------------------------------------------- */

static bool ends_in(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && strcasecmp(path + n - m, ending) == 0;
}

static bool is_safetensors(const mm_convert_request *r)
{
    return ends_in(r->output, ".safetensors");
}

static mm_status check_format(const mm_convert_request *r)
{
    static const char *const torch[] = {".pt", ".pth", ".bin", ".ckpt"};
    for (size_t i = 0; i < sizeof torch / sizeof *torch; i++)
        if (ends_in(r->output, torch[i]))
            return mm_fail(MM_E_ARG,
                           "%.600s: PyTorch's files are read, not written; "
                           "end the name in .safetensors, which open_clip and "
                           "transformers load",
                           r->output);
    bool checkpoint = ends_in(r->output, ".h5") || ends_in(r->output, ".hdf5");
    if (!checkpoint && !is_safetensors(r))
        return mm_fail(MM_E_ARG,
                       "%.600s: the name says the format, and must end in "
                       ".safetensors or .h5",
                       r->output);
    if (checkpoint && strcmp(r->names, "open_clip") != 0)
        return mm_fail(MM_E_ARG,
                       "--names %s is for .safetensors: a checkpoint (.h5) has "
                       "open_clip's names",
                       r->names);
    if (checkpoint && r->dtype && strcmp(r->dtype, "f32") != 0)
        return mm_fail(MM_E_ARG,
                       "--dtype %s is for .safetensors: a checkpoint (.h5) has "
                       "f32",
                       r->dtype);
    return MM_OK;
}

static mm_status check_overwriting(const mm_convert_request *r,
                                   const mm_weights *input)
{
    char *tmp_output; /* what the output is called while it is written */
    if (asprintf(&tmp_output, "%s.tmp", r->output) < 0)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    bool same = mm_weights_is_read_from(input, r->output) ||
                mm_weights_is_read_from(input, tmp_output);
    free(tmp_output);
    if (same)
        return mm_fail(MM_E_ARG,
                       "the output %.600s would overwrite the input %.600s: "
                       "choose another name",
                       r->output, mm_weights_path(input));
    return MM_OK;
}

/* OpenAI's code supports one kind of CLIP: models that it would load but
 * compute wrongly are refused. */
static mm_status check_openai(const engine *e)
{
    const mm_model_config *c = &e->model.config;
    const char *why = NULL;
    if (strcmp(e->request->names, "openai") != 0)
        return MM_OK;
    if (!c->json)
        why = "whether it has QuickGELU is unknown (give --model)";
    else if (c->image.activation != MM_QUICK_GELU)
        why = "it has GELU";
    else if (!e->plan.has_text)
        why = "its text tower is missing (--with FILE supplies it)";
    else if (c->image.width != 64 * c->image.n_heads ||
             c->text.width != 64 * c->text.n_heads)
        why = "its heads are not 64 wide";
    else if (c->image.mlp_width != 4 * c->image.width ||
             c->text.mlp_width != 4 * c->text.width)
        why = "its MLPs are not four times as wide";
    if (!why)
        return MM_OK;
    return mm_fail(MM_E_ARG, "--names openai: OpenAI's code cannot run %s: %s",
                   e->request->input, why);
}

/* ---- preparing --------------------------------------------------------- */

static mm_status open_inputs(engine *e)
{
    const char *paths[] = {e->request->input, e->request->with};
    for (int i = 0; i < 2 && paths[i]; i++) {
        e->inputs.n_sources = i + 1;
        mm_convert_source *source = &e->inputs.sources[i];
        MM_TRY(mm_convert_source_open(paths[i], e->log, source));
        MM_TRY(check_overwriting(e->request, source->weights));
    }
    return MM_OK;
}

/** How the output came about, and how its input did. */
static mm_status make_provenance(engine *e)
{
    if (!e->request->provenance)
        return MM_OK;
    const char *before = mm_weights_provenance(e->inputs.sources[0].weights);
    json_t *root = json_deep_copy(e->request->provenance);
    json_t *source = before ? json_loads(before, 0, NULL) : NULL;
    if (root && (!source || json_object_set(root, "source", source) == 0))
        e->provenance = json_dumps(root, 0);
    json_decref(source);
    json_decref(root);
    return e->provenance ? MM_OK
                         : mm_fail(MM_E_MEMORY, "no memory for the provenance");
}

static void describe(const engine *e)
{
    const mm_convert_source *s = &e->inputs.sources[0];
    const mm_model_config *c = &e->model.config;
    const char *activation = !c->json ? "activation unknown"
                             : c->image.activation == MM_QUICK_GELU
                                 ? "QuickGELU"
                                 : "GELU";
    mm_log_line(e->log,
                "%s: %s names, %lld blocks of width %lld, patches of %lld in "
                "images of %lld, %s, %s",
                s->path, mm_naming_title(s->naming),
                (long long)c->image.n_layers, (long long)c->image.width,
                (long long)c->patch_size, (long long)c->image_size, activation,
                e->plan.has_text ? "with a text tower"
                                 : "without a text tower");
}

static mm_status prepare(engine *e)
{
    e->names = mm_naming_find(e->request->names);
    MM_TRY(check_format(e->request));
    MM_TRY(open_inputs(e));
    MM_TRY(mm_convert_model_find(&e->inputs, e->request->model, e->log,
                                 &e->model));
    MM_TRY(mm_convert_plan_init(&e->inputs, &e->model, e->names, e->log,
                                &e->plan));
    MM_TRY(check_openai(e));
    describe(e);
    MM_TRY(make_provenance(e));
    MM_TRY(mm_convert_stream_create(&e->inputs, &e->plan, &e->stream));
    e->own = mm_convert_plan_range(&e->plan, mm_comm_rank(e->comm),
                                   mm_comm_n_ranks(e->comm));
    e->block = malloc(BLOCK_ELEMS * sizeof *e->block);
    return e->block ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for a block");
}

/* ---- working ----------------------------------------------------------- */

static mm_elem_type type_of(const char *dtype)
{
    if (dtype && strcmp(dtype, "f16") == 0)
        return MM_ELEM_F16;
    if (dtype && strcmp(dtype, "bf16") == 0)
        return MM_ELEM_BF16;
    return MM_ELEM_F32;
}

static mm_status create_output(engine *e)
{
    const mm_convert_request *r = e->request;
    if (is_safetensors(r))
        return mm_safetensors_begin(e->comm, r->output, &e->plan.output,
                                    type_of(r->dtype), e->model.config.json,
                                    e->provenance, &e->output);
    return mm_checkpoint_begin(e->comm, r->output, &e->plan.output, &e->output);
}

/** As a share of all elements, by this rank's progress. */
static void show_progress(const engine *e, int64_t at)
{
    double share = (double)(at - e->own.lo) / (double)(e->own.hi - e->own.lo);
    mm_progress_update(e->log,
                       (int64_t)(share * (double)e->plan.output.n_elems), NULL);
}

static mm_status copy_own(engine *e)
{
    int64_t at = e->own.lo;
    while (at < e->own.hi) {
        int64_t left = e->own.hi - at;
        int64_t n = left < BLOCK_ELEMS ? left : BLOCK_ELEMS;
        MM_TRY(mm_convert_stream_read(e->stream, at, at + n, e->block));
        MM_TRY(mm_weights_writer_write(e->output, at, at + n, e->block));
        at += n;
        show_progress(e, at);
    }
    /* Each tensor of the inputs was read whole, by one rank. */
    for (int i = 0; i < e->inputs.n_sources; i++)
        MM_TRY(mm_weights_verify(e->inputs.sources[i].weights, NULL));
    return MM_OK;
}

static mm_status convert(engine *e)
{
    MM_TRY(create_output(e));
    mm_progress_begin(e->log, "converting", "elements", e->plan.output.n_elems);
    MM_TRY(mm_weights_writer_commit(&e->output, copy_own(e),
                                    e->model.config.json, e->provenance));
    mm_progress_update(e->log, e->plan.output.n_elems, NULL);
    mm_progress_end(e->log);
    if (!e->plan.has_text && is_safetensors(e->request))
        mm_log_line(e->log,
                    "%s holds the image tower only, as %s does; --with FILE "
                    "adds the text tower of FILE",
                    e->request->output, e->request->input);
    return MM_OK;
}

static void close_all(engine *e)
{
    free(e->block);
    free(e->provenance);
    mm_convert_stream_destroy(&e->stream);
    mm_convert_plan_clear(&e->plan);
    mm_convert_model_clear(&e->model);
    for (int i = 0; i < e->inputs.n_sources; i++)
        mm_convert_source_close(&e->inputs.sources[i]);
}

mm_status mm_convert(mm_comm *comm, mm_log *log,
                     const mm_convert_request *request)
{
    MM_TRY(MM_CHECK_SAME(
        comm, MM_SAME_TEXT(request->output), MM_SAME_TEXT(request->model),
        MM_SAME_TEXT(request->names), MM_SAME_TEXT(request->dtype)));
    engine e = {.comm = comm, .log = log, .request = request};
    mm_status st = mm_comm_agree(comm, prepare(&e));
    if (st == MM_OK)
        st = convert(&e);
    close_all(&e);
    return st;
}
