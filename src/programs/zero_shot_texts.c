/* Choosing the class names and prompts of a zero-shot head from the options. */

#include "src/programs/zero_shot_texts.h"

#include "comm/check_same.h"
#include "io/file.h"
#include "src/base/names.h"
#include "src/data/benchmarks.h"
#include "src/data/class_texts.h"
#include "src/data/open_data.h"

#include <stdlib.h>
#include <string.h>

static const char *const default_prompts[] = {"a photo of a {}."};

static mm_status names_of_files(const mm_job *job, const char *name,
                                mm_zero_shot_texts *texts)
{
    mm_dataset *dataset = NULL;
    MM_TRY(mm_comm_agree(
        job->comm,
        mm_dataset_open(job->comm, name,
                        mm_options_text(job->options, "data-location"),
                        &dataset)));
    mm_status st;
    if (dataset->class_names) {
        texts->n_classes = dataset->n_classes;
        st = mm_names_copy((const char *const *)dataset->class_names,
                           dataset->n_classes, &texts->class_names);
    } else {
        st = mm_fail(MM_E_ARG,
                     "%s does not name its classes; give --classnames", name);
    }
    mm_dataset_close(&dataset);
    return st;
}

static mm_status open_names(const mm_job *job, const mm_benchmark *benchmark,
                            mm_zero_shot_texts *texts)
{
    const char *path = mm_options_text(job->options, "classnames");
    const char *name = mm_options_text(job->options, "dataset");
    if (path)
        return mm_class_names_read(path, &texts->class_names,
                                   &texts->n_classes);
    if (!name)
        return mm_fail(MM_E_ARG,
                       "no class names: give --dataset or --classnames");
    if (!benchmark ||
        (benchmark->class_names.n == 0 && benchmark->class_folders.n == 0))
        return names_of_files(job, name, texts);
    int n;
    MM_TRY(mm_benchmark_list_classes(benchmark, &texts->class_names, &n));
    texts->n_classes = n;
    return MM_OK;
}

static mm_status open_prompts(const mm_job *job, const mm_benchmark *benchmark,
                              mm_zero_shot_texts *texts)
{
    const char *path = mm_options_text(job->options, "templates");
    if (path)
        return mm_prompts_read(path, &texts->prompts, &texts->n_prompts);
    bool known = benchmark && benchmark->prompts.n > 0;
    texts->n_prompts = known ? benchmark->prompts.n : 1;
    return mm_names_copy(known ? benchmark->prompts.texts : default_prompts,
                         texts->n_prompts, &texts->prompts);
}

/** NULL where --dataset is a file or folder. */
static mm_status find_benchmark(const mm_job *job,
                                const mm_benchmark **benchmark)
{
    const char *name = mm_options_text(job->options, "dataset");
    *benchmark = NULL;
    if (!name || mm_benchmark_find(name, benchmark) == MM_OK)
        return MM_OK;
    if (strpbrk(name, "/.") || mm_file_exists(name))
        return MM_OK;
    return mm_fail(MM_E_ARG, "%s, or the path of a data set",
                   mm_fail_message());
}

mm_status mm_zero_shot_texts_read(const mm_job *job, mm_zero_shot_texts *texts)
{
    MM_TRY(MM_CHECK_CALL(job->comm));
    const mm_benchmark *benchmark;
    /* Either all ranks scan a folder or none does. */
    MM_TRY(mm_comm_agree(job->comm, find_benchmark(job, &benchmark)));
    MM_TRY(open_names(job, benchmark, texts));
    MM_TRY(open_prompts(job, benchmark, texts));
    mm_log_line(job->log, "%lld classes, %lld prompt%s ('%.60s'%s)",
                (long long)texts->n_classes, (long long)texts->n_prompts,
                texts->n_prompts > 1 ? "s" : "", texts->prompts[0],
                texts->n_prompts > 1 ? ", ..." : "");
    mm_class_names_warn_of_duplicates(
        job->log, (const char *const *)texts->class_names, texts->n_classes);
    return MM_OK;
}

void mm_zero_shot_texts_clear(mm_zero_shot_texts *texts)
{
    free(texts->class_names);
    free(texts->prompts);
    *texts = (mm_zero_shot_texts){0};
}
