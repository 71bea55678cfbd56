/* The program that merges the checkpoints of several tasks into one. */

#include "src/merge/merge.h"
#include "src/merge/merge_report.h"
#include "src/programs/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const mm_option rows[] = {
    {.name = "pretrained",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "weights that all tasks started from: HDF5, safetensors or "
             "PyTorch's",
     .required = true},
    {.name = "method",
     .kind = MM_OPTION_CHOICE,
     .value = "NAME",
     .fallback = "magmax",
     .choices = MM_MERGE_METHODS,
     .help = "how to merge"},
    {.name = "scaling-coef",
     .kind = MM_OPTION_REAL,
     .value = "X",
     .help = "factor of the merged change (default: magmax 0.5, average 1, "
             "random 1; task-arithmetic needs one)"},
    {.name = "seed",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "5",
     .max = 0x1p63,
     .help = "seed of --method random"},
    {.name = "device",
     .kind = MM_OPTION_CHOICE,
     .value = "WHICH",
     .fallback = "cpu",
     .choices = "cpu,cuda,auto",
     .free = true,
     .help = "what computes; auto: the CPU, since reading the files takes "
             "longer than computing"},
    {.name = "output",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "checkpoint to write (.h5); replaces an earlier one",
     .letter = 'o',
     .required = true},
    {.name = "json",
     .kind = MM_OPTION_FLAG,
     .help = "print the result as JSON on stdout"},
    MM_ROW_RANK_TIMEOUT,
};

static const mm_option_table table = {
    .program = "magmax_merge",
    .purpose = "Merge the checkpoints of several tasks into one",
    .operands = "FILE...",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

static mm_status choose_coef(const mm_options *options,
                             mm_merge_request *request)
{
    request->coef = request->method->default_coef;
    if (mm_options_is_given(options, "scaling-coef"))
        request->coef = mm_options_real(options, "scaling-coef");
    else if (!request->method->has_default_coef)
        return mm_fail(MM_E_ARG,
                       "--method %s needs --scaling-coef: it has no default",
                       request->method->name);
    return MM_OK;
}

/* One thread: blocks are so small that starting a team for each costs more than
 * it saves. More ranks use more cores, and may share a GPU. */
static mm_status open_device(const mm_job *job, mm_device **device)
{
    char gpu[32];
    snprintf(gpu, sizeof gpu, "cuda:%d", mm_comm_node_rank(job->comm));
    bool on_gpu = !strcmp(mm_options_text(job->options, "device"), "cuda");
    MM_TRY(mm_comm_agree(job->comm,
                         mm_device_open(on_gpu ? gpu : "cpu", 1, device)));
    int n_ranks = mm_comm_n_ranks(job->comm);
    mm_log_line(job->log, "%s, %d rank%s", mm_device_describe(*device), n_ranks,
                n_ranks > 1 ? "s" : "");
    return MM_OK;
}

static mm_status print_report(const mm_merge_request *request,
                              const mm_merge_result *result)
{
    char *text;
    MM_TRY(mm_merge_report(request, result, &text));
    printf("%s\n", text);
    free(text);
    return MM_OK;
}

static mm_status merge(const mm_job *job, mm_merge_request *request,
                       mm_merge_result *result)
{
    const mm_options *options = job->options;
    MM_TRY(choose_coef(options, request));
    MM_TRY(open_device(job, &request->device));
    MM_TRY(mm_merge(job->comm, job->log, request, result));
    mm_merge_log_shares(job->log, request, result);
    if (mm_options_flag(options, "json") && mm_comm_rank(job->comm) == 0)
        return print_report(request, result);
    return MM_OK;
}

static mm_status work(const mm_job *job)
{
    const mm_options *options = job->options;
    int n_inputs = mm_options_n_operands(options);
    const char **inputs = calloc((size_t)n_inputs + 1, sizeof *inputs);
    mm_merge_result result = {
        .n_won = calloc((size_t)n_inputs + 1, sizeof *result.n_won)};
    json_t *recorded = mm_options_to_json(options);
    mm_status st = MM_OK;
    if (!inputs || !result.n_won || !recorded)
        st = mm_fail(MM_E_MEMORY, "no memory for %d inputs", n_inputs);
    MM_TRY_GOTO(st, done, mm_comm_agree(job->comm, st));
    for (int i = 0; i < n_inputs; i++)
        inputs[i] = mm_options_operand(options, i);

    mm_merge_request request = {
        .pretrained = mm_options_text(options, "pretrained"),
        .inputs = inputs,
        .n_inputs = n_inputs,
        .output = mm_options_text(options, "output"),
        .method = mm_merge_method_find(mm_options_text(options, "method")),
        .seed = (uint64_t)mm_options_int(options, "seed"),
        .options = recorded,
    };
    st = merge(job, &request, &result);
    mm_device_close(&request.device);
done:
    json_decref(recorded);
    free(result.n_won);
    free(inputs);
    return st;
}

int main(int argc, char **argv)
{
    return mm_program_main(&table, work, argc, argv);
}
