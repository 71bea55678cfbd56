/* The program that evaluates a checkpoint; it prints a table of accuracies, or
 * JSON. */

#include "src/base/utf8.h"
#include "src/eval/evaluate.h"
#include "src/programs/workload.h"

#include <stdlib.h>

static const mm_option rows[] = {
    MM_ROW_MODEL,
    MM_ROW_DEVICE,
    MM_ROW_PRECISION,
    {.name = "load",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .required = true,
     .help = "weights to evaluate, HDF5, safetensors or PyTorch's"},
    MM_ROW_DATASET,
    MM_ROW_DATA_LOCATION,
    MM_ROW_HEAD,
    MM_ROW_N_SPLITS,
    MM_ROW_SPLIT_STRATEGY,
    {.name = "batch-size",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "128",
     .min = 1,
     .max = 1e6,
     .help = "images at a time on each rank"},
    MM_ROW_SAMPLES_PER_CLASS("test"),
    MM_ROW_WORKERS,
    MM_ROW_SKIP_BAD,
    {.name = "save-features",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "also write features, logits and labels of the test images to "
             "this HDF5 file"},
    {.name = "json",
     .kind = MM_OPTION_FLAG,
     .help = "print one JSON document instead of a table"},
    MM_ROW_RANK_TIMEOUT,
};

static const mm_option_table table = {
    .program = "magmax_eval",
    .purpose = "Accuracy of a checkpoint on every task's test images, "
               "task-aware and task-agnostic",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

static double share(int64_t part, int64_t whole)
{
    return whole ? (double)part / (double)whole : 0;
}

static void print_table(const mm_task_score *scores, int n_tasks)
{
    double aware = 0, agnostic = 0;
    printf("task    images  task-aware  task-agnostic\n");
    for (int t = 0; t < n_tasks; t++) {
        double a = share(scores[t].n_aware, scores[t].n_images);
        double b = share(scores[t].n_agnostic, scores[t].n_images);
        printf("%4d  %8lld  %9.2f%%  %12.2f%%\n", t,
               (long long)scores[t].n_images, 100 * a, 100 * b);
        aware += a / n_tasks;
        agnostic += b / n_tasks;
    }
    printf("mean            %9.2f%%  %12.2f%%\n", 100 * aware, 100 * agnostic);
}

static mm_status print_json(const mm_job *job, const mm_task_score *scores,
                            int n_tasks, int64_t n_skipped)
{
    json_t *aware = json_array(), *agnostic = json_array();
    json_t *n_images = json_array();
    double mean_aware = 0, mean_agnostic = 0;
    for (int t = 0; t < n_tasks; t++) {
        double a = share(scores[t].n_aware, scores[t].n_images);
        double b = share(scores[t].n_agnostic, scores[t].n_images);
        json_array_append_new(aware, json_real(a));
        json_array_append_new(agnostic, json_real(b));
        json_array_append_new(n_images, json_integer(scores[t].n_images));
        mean_aware += a / n_tasks;
        mean_agnostic += b / n_tasks;
    }
    json_t *root =
        json_pack("{s:o, s:o, s:o, s:I, s:f, s:f, s:o}", "task_aware", aware,
                  "task_agnostic", agnostic, "n_images", n_images, "n_skipped",
                  (json_int_t)n_skipped, "mean_task_aware", mean_aware,
                  "mean_task_agnostic", mean_agnostic, "load",
                  mm_utf8_json(mm_options_text(job->options, "load")));
    if (!root)
        return mm_fail(MM_E_MEMORY, "no memory for a JSON document");
    int failed = json_dumpf(root, stdout, JSON_REAL_PRECISION(17));
    putchar('\n');
    json_decref(root);
    return failed ? mm_fail(MM_E_IO, "cannot write a JSON document") : MM_OK;
}

static mm_status evaluate(const mm_job *job)
{
    mm_workload work = {0};
    mm_task_score *scores = NULL;
    mm_status st;
    static const char *const inputs[] = {"load", "model", "head", "dataset",
                                         NULL};
    MM_TRY(mm_job_check_output(job, "save-features", inputs));
    MM_TRY_GOTO(st, done, mm_workload_open_model(job, false, 0, &work));
    MM_TRY_GOTO(st, done, mm_workload_open_dataset(job, &work));
    MM_TRY_GOTO(st, done, mm_workload_open_tasks(job, false, &work));
    MM_TRY_GOTO(st, done,
                mm_workload_open_bad(job, &work.dataset->test, &work));
    scores = calloc((size_t)work.tasks.n_tasks, sizeof *scores);
    st = scores ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for scores");
    MM_TRY_GOTO(st, done, mm_comm_agree(job->comm, st));
    mm_evaluate_plan plan = {
        .comm = job->comm,
        .log = job->log,
        .device = work.device,
        .model = &work.model,
        .head = &work.head,
        .dataset = work.dataset,
        .tasks = &work.tasks,
        .batch_size = mm_options_int(job->options, "batch-size"),
        .n_workers = mm_workload_n_workers(job->options),
        .bad = work.bad,
        .features_path = mm_options_text(job->options, "save-features"),
    };
    MM_TRY_GOTO(st, done, mm_evaluate(&plan, scores));
    int64_t n_skipped = mm_workload_report_bad(job, &work);
    if (mm_comm_rank(job->comm) == 0) {
        if (mm_options_flag(job->options, "json"))
            st = print_json(job, scores, work.tasks.n_tasks, n_skipped);
        else
            print_table(scores, work.tasks.n_tasks);
    }
done:
    free(scores);
    mm_workload_close(&work);
    return st;
}

int main(int argc, char **argv)
{
    return mm_program_main(&table, evaluate, argc, argv);
}
