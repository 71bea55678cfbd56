/* Opening what the options name: device, model, data set, head and tasks. */

#include "src/programs/workload.h"

#include "comm/check_same.h"
#include "src/data/open_data.h"
#include "src/programs/gpus.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static mm_status open_device(const mm_job *job, bool gpu_each,
                             mm_workload *work)
{
    mm_comm *comm = job->comm;
    MM_TRY(mm_comm_agree(
        comm, mm_device_choose(mm_options_text(job->options, "device"),
                               mm_options_text(job->options, "precision"),
                               mm_comm_n_threads(comm), mm_comm_node_rank(comm),
                               &work->device)));
    const char *precision = mm_device_precision(work->device);
    mm_options_set_default(job->options, "precision", precision);
    mm_log_line(job->log, "%s, %s, %d rank%s", mm_device_describe(work->device),
                precision, mm_comm_n_ranks(comm),
                mm_comm_n_ranks(comm) > 1 ? "s" : "");
    MM_TRY(mm_gpus_check(comm, job->log, work->device, gpu_each));
    if (mm_comm_n_cores(comm) == 1 && mm_comm_n_node_ranks(comm) == 1 &&
        mm_comm_n_host_cores(comm) > 1)
        mm_log_warn(job->log,
                    "this rank may use 1 of %d cores; give mpirun --bind-to "
                    "none",
                    mm_comm_n_host_cores(comm));
    return MM_OK;
}

mm_status mm_workload_open_model(const mm_job *job, bool for_training,
                                 uint64_t seed, mm_workload *work)
{
    MM_TRY(
        MM_CHECK_SAME(job->comm, MM_SAME_INT(for_training), MM_SAME_INT(seed)));
    MM_TRY(open_device(job, for_training, work));
    return mm_model_init(
        job->comm, job->log, mm_options_text(job->options, "model"),
        mm_options_text(job->options, "load"), seed, &work->model);
}

mm_status mm_workload_open_text_model(const mm_job *job, mm_workload *work)
{
    MM_TRY(MM_CHECK_CALL(job->comm));
    MM_TRY(open_device(job, false, work));
    return mm_model_init_text(
        job->comm, job->log, mm_options_text(job->options, "model"),
        mm_options_text(job->options, "load"), &work->model);
}

mm_status mm_workload_open_dataset(const mm_job *job, mm_workload *work)
{
    MM_TRY(MM_CHECK_CALL(job->comm));
    const mm_options *options = job->options;
    MM_TRY(mm_comm_agree(
        job->comm,
        mm_dataset_open(job->comm, mm_options_text(options, "dataset"),
                        mm_options_text(options, "data-location"),
                        &work->dataset)));
    if (work->dataset->note)
        mm_log_line(job->log, "%s", work->dataset->note);
    return MM_OK;
}

mm_status mm_workload_open_bad(const mm_job *job, const mm_half *half,
                               mm_workload *work)
{
    MM_TRY(MM_CHECK_CALL(job->comm));
    if (!mm_options_flag(job->options, "skip-bad-images"))
        return MM_OK;
    return mm_comm_agree(job->comm, mm_bad_images_create(half, &work->bad));
}

int mm_workload_n_workers(const mm_options *options)
{
    return mm_options_is_set(options, "workers")
               ? (int)mm_options_int(options, "workers")
               : -1;
}

int64_t mm_workload_report_bad(const mm_job *job, const mm_workload *work)
{
    int64_t n = work->bad ? mm_bad_images_count(work->bad) : 0;
    if (n > 0)
        mm_log_line(job->log, "skipped %lld image%s that cannot be decoded",
                    (long long)n, n > 1 ? "s" : "");
    return n;
}

static int64_t int_or_zero(const mm_options *options, const char *name)
{
    return mm_options_is_set(options, name) ? mm_options_int(options, name) : 0;
}

/** Folders, lists and prompts spell the same name differently. */
static bool is_alike(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        bool blank_a = strchr(" _-", *a), blank_b = strchr(" _-", *b);
        if (blank_a != blank_b || (!blank_a && tolower((unsigned char)*a) !=
                                                   tolower((unsigned char)*b)))
            return false;
    }
    return *a == *b;
}

/** A head for the same classes in another order gives wrong answers. */
static void warn_of_other_names(mm_log *log, const char *head_path,
                                const mm_head *head, const mm_dataset *dataset)
{
    if (!head->class_names || !dataset->class_names)
        return;
    for (int64_t i = 0; i < head->n_classes; i++)
        if (!is_alike(head->class_names[i], dataset->class_names[i])) {
            mm_log_warn(log,
                        "class %lld is '%.80s' in %s, but '%.80s' in %s: is "
                        "this head for these classes, in this order?",
                        (long long)i, head->class_names[i], head_path,
                        dataset->class_names[i], dataset->name);
            return;
        }
}

static mm_status open_tasks(const mm_options *options, mm_log *log,
                            bool for_training, mm_workload *work)
{
    const char *strategy = mm_options_text(options, "split-strategy");
    if (!strategy && mm_options_is_set(options, "n-splits"))
        return mm_fail(MM_E_ARG,
                       "--n-splits needs --split-strategy (class, data, "
                       "domain)");
    MM_TRY(mm_head_read(mm_options_text(options, "head"),
                        work->model.config.embed_dim, &work->head));
    int64_t per_class = int_or_zero(options, "samples-per-class");
    mm_split_plan plan = {
        .strategy = mm_split_strategy_of(strategy),
        .n_splits = (int)int_or_zero(options, "n-splits"),
        .n_classes = (int)work->head.n_classes,
        .train_per_class = for_training ? per_class : 0,
        .test_per_class = for_training ? 0 : per_class,
        .need_train = for_training,
        .need_test = !for_training,
    };
    if (strategy && plan.strategy != MM_SPLIT_DOMAIN && plan.n_splits == 0)
        return mm_fail(MM_E_ARG, "--split-strategy %s needs --n-splits",
                       strategy);
    MM_TRY(mm_task_list_init(work->dataset, &plan, &work->tasks));
    warn_of_other_names(log, mm_options_text(options, "head"), &work->head,
                        work->dataset);
    return MM_OK;
}

mm_status mm_workload_open_tasks(const mm_job *job, bool for_training,
                                 mm_workload *work)
{
    MM_TRY(MM_CHECK_SAME(job->comm, MM_SAME_INT(for_training)));
    return mm_comm_agree(
        job->comm, open_tasks(job->options, job->log, for_training, work));
}

void mm_workload_close(mm_workload *work)
{
    mm_bad_images_destroy(&work->bad);
    mm_task_list_clear(&work->tasks);
    mm_head_clear(&work->head);
    mm_dataset_close(&work->dataset);
    mm_model_clear(&work->model);
    mm_device_close(&work->device);
}

char *mm_workload_provenance(const mm_job *job, const char *program)
{
    json_t *root =
        json_pack("{s:s, s:s, s:o}", "program", program, "version",
                  MAGMAX_VERSION, "options", mm_options_to_json(job->options));
    char *text = root ? json_dumps(root, 0) : NULL;
    json_decref(root);
    return text;
}
