/* A merge from start to end: every rank streams its elements of all checkpoints
 * through the device and writes them. */

#include "src/merge/merge.h"

#include "comm/check_same.h"
#include "io/file.h"
#include "io/weights/weights.h"
#include "io/weights/weights_writer.h"
#include "src/merge/merge_plan.h"
#include "src/merge/merge_report.h"
#include "src/merge/pipeline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A task's index is 16 bits wide in the ops. */
enum { MOST_INPUTS = 1 << 16 };

typedef struct engine {
    mm_comm *comm;
    mm_log *log;
    const mm_merge_request *request;
    mm_merge_settings settings;

    mm_weights *pretrained;
    mm_weights **inputs; /* [n_inputs] */
    mm_merge_plan plan;
    mm_range own; /* elements of the output */
    mm_weights_writer *checkpoint;

    mm_pipeline *pipeline;
    int64_t *n_won; /* [n_inputs] */
} engine;

static mm_status check_output(const mm_merge_request *request,
                              const char *input)
{
    const char *output = request->output;
    char *tmp_output; /* what a checkpoint is called while it is written */
    if (asprintf(&tmp_output, "%s.tmp", output) < 0)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    bool same = mm_file_same(output, input) || mm_file_same(tmp_output, input);
    free(tmp_output);
    if (same)
        return mm_fail(MM_E_ARG,
                       "the output %.600s would overwrite the input %.600s: "
                       "choose another name",
                       output, input);
    return MM_OK;
}

static mm_status check_request(const mm_merge_request *request)
{
    if (request->n_inputs < 1)
        return mm_fail(MM_E_ARG,
                       "no inputs: name the tasks' checkpoints, in task order");
    if (request->n_inputs >= MOST_INPUTS)
        return mm_fail(MM_E_ARG, "%d inputs, at most %d", request->n_inputs,
                       MOST_INPUTS - 1);
    if (!isfinite((float)request->coef))
        return mm_fail(MM_E_ARG,
                       "the scaling coefficient %g is not a finite fp32 number",
                       request->coef);
    static const char *const other_formats[] = {".safetensors", ".pt", ".pth",
                                                ".bin"};
    const char *ending = strrchr(request->output, '.');
    for (size_t i = 0;
         ending && i < sizeof other_formats / sizeof *other_formats; i++)
        if (strcmp(ending, other_formats[i]) == 0)
            return mm_fail(MM_E_ARG,
                           "the output %.600s must end in .h5: a merge writes "
                           "a checkpoint, which magmax_convert turns into "
                           "other formats",
                           request->output);
    MM_TRY(check_output(request, request->pretrained));
    for (int i = 0; i < request->n_inputs; i++)
        MM_TRY(check_output(request, request->inputs[i]));
    return MM_OK;
}

static mm_status make_plan(engine *e)
{
    const mm_merge_request *request = e->request;
    mm_merge_source pretrained = {request->pretrained,
                                  mm_weights_table(e->pretrained)};
    mm_merge_source *inputs = calloc((size_t)request->n_inputs, sizeof *inputs);
    if (!inputs)
        return mm_fail(MM_E_MEMORY, "no memory for the plan of a merge");
    for (int i = 0; i < request->n_inputs; i++) {
        inputs[i].path = request->inputs[i];
        inputs[i].table = mm_weights_table(e->inputs[i]);
    }
    mm_status st =
        mm_merge_plan_init(&e->plan, &pretrained, inputs, request->n_inputs);
    free(inputs);
    return st;
}

static mm_status open_files(engine *e)
{
    const mm_merge_request *request = e->request;
    e->inputs = calloc((size_t)request->n_inputs, sizeof(mm_weights *));
    e->n_won = calloc((size_t)request->n_inputs, sizeof *e->n_won);
    if (!e->inputs || !e->n_won)
        return mm_fail(MM_E_MEMORY, "no memory for %d inputs",
                       request->n_inputs);
    MM_TRY(mm_weights_open(request->pretrained, &e->pretrained));
    for (int i = 0; i < request->n_inputs; i++)
        MM_TRY(mm_weights_open(request->inputs[i], &e->inputs[i]));
    MM_TRY(make_plan(e));
    for (int i = 0; i < request->n_inputs; i++)
        MM_TRY(mm_weights_bind(e->inputs[i], &e->plan.folded));
    e->own = mm_merge_plan_range(&e->plan, mm_comm_rank(e->comm),
                                 mm_comm_n_ranks(e->comm));
    return MM_OK;
}

static mm_status prepare(engine *e)
{
    MM_TRY(check_request(e->request));
    MM_TRY(open_files(e));
    return mm_pipeline_create(e->request->device, e->request->method,
                              &e->pipeline);
}

/* Ranks on several hosts may see different files under one name. */
static mm_status check_same_plan(const engine *e)
{
    int n_ranks = mm_comm_n_ranks(e->comm);
    uint64_t own = mm_merge_plan_fingerprint(&e->plan);
    uint64_t *all = calloc((size_t)n_ranks, sizeof *all);
    mm_status st = MM_OK;
    if (!all)
        st = mm_fail(MM_E_MEMORY, "no memory for %d ranks", n_ranks);
    MM_TRY_GOTO(st, done, mm_comm_agree(e->comm, st));
    MM_TRY_GOTO(st, done, mm_comm_allgather(e->comm, &own, sizeof own, all));
    for (int rank = 1; rank < n_ranks && st == MM_OK; rank++)
        if (all[rank] != all[0])
            st = mm_fail(MM_E_FORMAT,
                         "ranks 0 and %d see files of different content under "
                         "the same names, as %.600s",
                         rank, e->request->inputs[0]);
done:
    free(all);
    return st;
}

/* Four counters per task, so that adjacent elements with the same winner need
 * not wait for each other. */
static void count_winners(engine *e, const uint16_t *winner, int64_t n_elems)
{
    enum { FEW = 256, WAYS = 4 };
    if (e->request->n_inputs > FEW) {
        for (int64_t i = 0; i < n_elems; i++)
            e->n_won[winner[i]]++;
        return;
    }
    int32_t counts[WAYS][FEW] = {{0}};
    int64_t i = 0;
    for (; i + WAYS <= n_elems; i += WAYS)
        for (int way = 0; way < WAYS; way++)
            counts[way][winner[i + way]]++;
    for (; i < n_elems; i++)
        counts[0][winner[i]]++;
    for (int task = 0; task < e->request->n_inputs; task++)
        for (int way = 0; way < WAYS; way++)
            e->n_won[task] += counts[way][task];
}

/* Waiting for the device is watched as computing; reading files is not. */

static mm_status next_result(engine *e, bool all, bool *found,
                             mm_pipeline_result *result)
{
    mm_comm_begin_compute(e->comm);
    mm_status st = mm_pipeline_next(e->pipeline, all, found, result);
    mm_comm_end_compute(e->comm);
    return st;
}

static mm_status host_block(engine *e, mm_pipeline_input input, float **host)
{
    mm_comm_begin_compute(e->comm);
    mm_status st = mm_pipeline_host(e->pipeline, input, host);
    mm_comm_end_compute(e->comm);
    return st;
}

/** Write the merged blocks that have come back; with `all`, wait for those that
 * have not. */
static mm_status write_results(engine *e, bool all)
{
    for (;;) {
        bool found;
        mm_pipeline_result result;
        MM_TRY(next_result(e, all, &found, &result));
        if (!found)
            return MM_OK;
        if (result.winner)
            count_winners(e, result.winner, result.n_elems);
        MM_TRY(mm_weights_writer_write(e->checkpoint, result.lo,
                                       result.lo + result.n_elems,
                                       result.merged));
    }
}

/** Read elements of an input, in the coordinates of `file`, and send them. */
static mm_status send(engine *e, mm_pipeline_input input, mm_weights *file,
                      int64_t lo, int64_t n_elems, const float **device)
{
    float *host;
    MM_TRY(host_block(e, input, &host));
    MM_TRY(mm_weights_read(file, lo, lo + n_elems, host));
    return mm_pipeline_send(e->pipeline, input, n_elems, device);
}

/** Fold elements [lo, lo + n) of the output, [first, first + n) of those that
 * are folded. */
static mm_status fold_block(engine *e, int64_t lo, int64_t first,
                            int64_t n_elems)
{
    const mm_merge_method *method = e->request->method;
    mm_merge_block block;
    const float *base, *tuned;
    MM_TRY(send(e, MM_PIPELINE_BASE, e->pretrained, lo, n_elems, &base));
    MM_TRY(mm_pipeline_begin(e->pipeline, first, n_elems, base, &block));
    for (int task = 0; task < e->request->n_inputs; task++) {
        MM_TRY(send(e, MM_PIPELINE_TUNED, e->inputs[task], first, n_elems,
                    &tuned));
        MM_TRY(method->fold(&e->settings, &block, tuned, task));
        MM_TRY(mm_pipeline_used(e->pipeline, MM_PIPELINE_TUNED));
    }
    MM_TRY(mm_pipeline_end(e->pipeline, &e->settings, &block, lo));
    MM_TRY(mm_pipeline_used(e->pipeline, MM_PIPELINE_BASE));
    return write_results(e, false);
}

static mm_status copy_block(engine *e, int64_t lo, int64_t n_elems)
{
    float *values;
    MM_TRY(host_block(e, MM_PIPELINE_BASE, &values));
    MM_TRY(mm_weights_read(e->pretrained, lo, lo + n_elems, values));
    return mm_weights_writer_write(e->checkpoint, lo, lo + n_elems, values);
}

/** As a share of all elements, by this rank's progress. */
static void show_progress(const engine *e, int64_t at)
{
    double share = (double)(at - e->own.lo) / (double)(e->own.hi - e->own.lo);
    mm_progress_update(
        e->log, (int64_t)(share * (double)e->plan.output->n_elems), NULL);
}

/** This rank's elements, run by run, block by block. */
static mm_status merge_own(engine *e)
{
    int64_t most = mm_pipeline_block_elems(e->pipeline);
    for (int i = 0; i < e->plan.n_runs; i++) {
        const mm_merge_run *run = &e->plan.runs[i];
        int64_t at = run->lo > e->own.lo ? run->lo : e->own.lo;
        int64_t end = run->hi < e->own.hi ? run->hi : e->own.hi;
        while (at < end) {
            int64_t n = end - at < most ? end - at : most;
            if (run->folded)
                MM_TRY(fold_block(e, at, run->folded_lo + (at - run->lo), n));
            else
                MM_TRY(copy_block(e, at, n));
            at += n;
            show_progress(e, at);
        }
    }
    return write_results(e, true);
}

/** Checksums of all files over all ranks. */
static mm_status verify(const engine *e)
{
    MM_TRY(mm_weights_verify(e->pretrained, e->comm));
    for (int i = 0; i < e->request->n_inputs; i++)
        MM_TRY(mm_weights_verify(e->inputs[i], e->comm));
    return MM_OK;
}

static mm_status commit(engine *e, mm_status st)
{
    char *provenance = NULL;
    const mm_merge_result result = {e->plan.folded.n_elems, e->n_won};
    if (st == MM_OK)
        st = mm_merge_provenance(e->request, &result, &provenance);
    st = mm_weights_writer_commit(&e->checkpoint, st,
                                  mm_weights_model(e->pretrained), provenance);
    free(provenance);
    return st;
}

static mm_status write_merged(engine *e)
{
    MM_TRY(mm_checkpoint_begin(e->comm, e->request->output, e->plan.output,
                               &e->checkpoint));
    mm_progress_begin(e->log, "merging", "elements", e->plan.output->n_elems);
    mm_status st = mm_comm_agree(e->comm, merge_own(e));
    if (st == MM_OK)
        st = verify(e);
    if (st == MM_OK)
        st = mm_comm_sum_int64(e->comm, e->n_won, e->request->n_inputs);
    MM_TRY(commit(e, st));
    mm_progress_update(e->log, e->plan.output->n_elems, NULL);
    mm_progress_end(e->log);
    return MM_OK;
}

static void close_all(engine *e)
{
    mm_pipeline_destroy(&e->pipeline);
    mm_merge_plan_clear(&e->plan);
    for (int i = 0; e->inputs && i < e->request->n_inputs; i++)
        mm_weights_close(&e->inputs[i]);
    mm_weights_close(&e->pretrained);
    free(e->inputs);
    free(e->n_won);
}

mm_status mm_merge(mm_comm *comm, mm_log *log, const mm_merge_request *request,
                   mm_merge_result *result)
{
    MM_TRY(MM_CHECK_SAME(
        comm, MM_SAME_INT(request->n_inputs), MM_SAME_TEXT(request->output),
        MM_SAME_TEXT(request->method->name), MM_SAME_REAL(request->coef),
        MM_SAME_INT(request->seed)));
    engine e = {.comm = comm,
                .log = log,
                .request = request,
                .settings = {.n_tasks = request->n_inputs,
                             .coef = (float)request->coef,
                             .seed = request->seed}};
    mm_status st = prepare(&e);

    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    MM_TRY_GOTO(st, done, check_same_plan(&e));
    MM_TRY_GOTO(st, done, write_merged(&e));
    result->n_elems = e.plan.folded.n_elems;
    memcpy(result->n_won, e.n_won, (size_t)request->n_inputs * sizeof *e.n_won);
done:
    close_all(&e);
    return st;
}
