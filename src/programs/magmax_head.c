/* The program that makes a frozen classification head: zero-shot, prototypes or
 * orthonormal; it also prints token ids. */

#include "src/base/names.h"
#include "src/eval/prototypes.h"
#include "src/eval/zero_shot.h"
#include "src/programs/workload.h"
#include "src/programs/zero_shot_texts.h"
#include "src/tokenizer/token_lines.h"
#include "src/tokenizer/vocabulary_find.h"

#include <stdlib.h>

static const mm_option rows[] = {
    {.name = "prototypes",
     .kind = MM_OPTION_FLAG,
     .help = "rows are the means of each class's training features"},
    {.name = "orthonormal",
     .kind = MM_OPTION_FLAG,
     .help = "rows are a fixed orthonormal set, a function of --seed"},
    {.name = "tokens",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "make no head: print the token ids of each line of a text file as "
             "JSON"},
    MM_ROW_MODEL,
    MM_ROW_DEVICE,
    MM_ROW_PRECISION,
    {.name = "load",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "weights that encode the texts, or the images of --prototypes"},
    {.name = "vocab",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "vocabulary of texts: bpe_simple_vocab_16e6.txt.gz, merges.txt or "
             "tokenizer.json, or their folder; without it, beside --load or "
             "where .ci/install.sh put it"},
    {.name = "classnames",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help =
         "class names, one per line or a JSON array; without it, --dataset's"},
    {.name = "templates",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "prompts, one per line or a JSON array, {} for the class name; "
             "without it, --dataset's, or \"a photo of a {}.\""},
    {.name = "dataset",
     .kind = MM_OPTION_TEXT,
     .value = "NAME",
     .help = "a benchmark's name, for its class names and prompts; or a data "
             "set as magmax_train takes it"},
    MM_ROW_DATA_LOCATION,
    {.name = "scale",
     .kind = MM_OPTION_REAL,
     .value = "X",
     .fallback = "100",
     .min = 1e-6,
     .max = 1e6,
     .help = "length of each row; zero-shot heads without it: exp(logit_scale) "
             "of the weights"},
    {.name = "batch-size",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "128",
     .min = 1,
     .max = 1e6,
     .help = "images of --prototypes at a time on each rank"},
    MM_ROW_SEED,
    MM_ROW_SAMPLES_PER_CLASS("training"),
    MM_ROW_WORKERS,
    MM_ROW_SKIP_BAD,
    {.name = "output",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .letter = 'o',
     .help = "the head, an HDF5 file"},
    MM_ROW_RANK_TIMEOUT,
};

static const mm_option_table table = {
    .program = "magmax_head",
    .purpose = "Make a frozen classification head: zero-shot, from class names "
               "and prompts, unless another kind is chosen",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

static mm_status make_prototypes(const mm_job *job, mm_workload *work,
                                 mm_head *head)
{
    const mm_options *o = job->options;
    mm_split_plan split = {
        .strategy = MM_SPLIT_NONE,
        .n_classes = work->dataset->n_classes,
        .train_per_class = mm_options_is_set(o, "samples-per-class")
                               ? mm_options_int(o, "samples-per-class")
                               : 0,
        .need_train = true,
    };
    MM_TRY(mm_comm_agree(
        job->comm, mm_task_list_init(work->dataset, &split, &work->tasks)));
    MM_TRY(mm_workload_open_bad(job, &work->dataset->train, work));
    mm_encode_plan plan = {
        .comm = job->comm,
        .log = job->log,
        .device = work->device,
        .model = &work->model,
        .half = &work->dataset->train,
        .batch_size = mm_options_int(o, "batch-size"),
        .n_workers = mm_workload_n_workers(o),
        .bad = work->bad,
    };
    MM_TRY(mm_head_init_prototypes(&plan, &work->tasks.tasks[0],
                                   mm_options_real(o, "scale"), head));
    mm_workload_report_bad(job, work);
    return MM_OK;
}

static mm_status make_orthonormal(const mm_job *job, mm_workload *work,
                                  mm_head *head)
{
    const mm_options *o = job->options;
    return mm_head_init_orthonormal(
        work->dataset->n_classes, work->model.config.embed_dim,
        mm_options_real(o, "scale"), (uint64_t)mm_options_int(o, "seed"), head);
}

/** On rank 0 alone. */
static mm_status write_head(const mm_job *job, const mm_head *head)
{
    if (mm_comm_rank(job->comm) != 0)
        return MM_OK;
    char *provenance = mm_workload_provenance(job, table.program);
    if (!provenance)
        return mm_fail(MM_E_MEMORY, "no memory for the provenance");
    mm_status st = mm_head_write(mm_options_text(job->options, "output"), head,
                                 provenance);
    free(provenance);
    return st;
}

/* Rows are labels, and where the data set names those, so does the head. */
static mm_status name_rows(const mm_dataset *dataset, mm_head *head)
{
    if (!dataset->class_names || dataset->n_classes != head->n_classes)
        return MM_OK;
    return mm_names_copy((const char *const *)dataset->class_names,
                         head->n_classes, &head->class_names);
}

/* Open the model and the data set, make the head of the latter, write it. */
static mm_status make_head(const mm_job *job,
                           mm_status (*make)(const mm_job *job,
                                             mm_workload *work, mm_head *head))
{
    mm_workload work = {0};
    mm_head head = {0};
    mm_status st;
    MM_TRY_GOTO(st, done, mm_workload_open_model(job, false, 0, &work));
    MM_TRY_GOTO(st, done, mm_workload_open_dataset(job, &work));
    MM_TRY_GOTO(st, done, mm_comm_agree(job->comm, make(job, &work, &head)));
    MM_TRY_GOTO(st, done,
                mm_comm_agree(job->comm, name_rows(work.dataset, &head)));
    st = write_head(job, &head);
done:
    mm_head_clear(&head);
    mm_workload_close(&work);
    return st;
}

static mm_status run_prototypes(const mm_job *job)
{
    return make_head(job, make_prototypes);
}

static mm_status run_orthonormal(const mm_job *job)
{
    return make_head(job, make_orthonormal);
}

static mm_status open_tokenizer(const mm_options *o, int64_t n_ids,
                                mm_tokenizer **tokenizer)
{
    char *path;
    MM_TRY(mm_vocabulary_find(mm_options_text(o, "vocab"),
                              mm_options_text(o, "load"), &path));
    mm_status st = mm_tokenizer_read(path, n_ids, tokenizer);
    free(path);
    return st;
}

static mm_status run_tokens(const mm_job *job)
{
    const mm_options *o = job->options;
    mm_tokenizer *tokenizer = NULL;
    if (mm_comm_rank(job->comm) != 0)
        return MM_OK;
    MM_TRY(open_tokenizer(o, MM_CLIP_N_IDS, &tokenizer));
    mm_status st = mm_token_lines_write(tokenizer, mm_options_text(o, "tokens"),
                                        MM_CLIP_CONTEXT_LENGTH, stdout);
    mm_tokenizer_destroy(&tokenizer);
    return st;
}

static mm_status run_zero_shot(const mm_job *job)
{
    const mm_options *o = job->options;
    mm_comm *comm = job->comm;
    mm_workload work = {0};
    mm_zero_shot_texts texts = {0};
    mm_tokenizer *tokenizer = NULL;
    mm_head head = {0};
    mm_status st;
    MM_TRY_GOTO(st, done,
                mm_comm_agree(comm, mm_zero_shot_texts_read(job, &texts)));
    MM_TRY_GOTO(st, done, mm_workload_open_text_model(job, &work));
    MM_TRY_GOTO(
        st, done,
        mm_comm_agree(
            comm, open_tokenizer(o, work.model.config.vocab_size, &tokenizer)));
    mm_zero_shot_plan plan = {
        .comm = comm,
        .log = job->log,
        .device = work.device,
        .model = &work.model,
        .tokenizer = tokenizer,
        .class_names = (const char *const *)texts.class_names,
        .n_classes = texts.n_classes,
        .prompts = (const char *const *)texts.prompts,
        .n_prompts = texts.n_prompts,
        .scale =
            mm_options_is_given(o, "scale") ? mm_options_real(o, "scale") : 0,
        .batch_tokens = MM_TEXT_BATCH_TOKENS,
    };
    MM_TRY_GOTO(st, done, mm_head_init_zero_shot(&plan, &head, NULL));
    st = write_head(job, &head);
done:
    mm_head_clear(&head);
    mm_tokenizer_destroy(&tokenizer);
    mm_zero_shot_texts_clear(&texts);
    mm_workload_close(&work);
    return st;
}

/* What the program can do: the option that chooses it, the options that it
 * needs, and options that do not go with it. */
static const struct mode {
    const char *option, *what;
    mm_status (*run)(const mm_job *job);
    const char *needs[4], *refuses[5];
} modes[] = {
    {NULL,
     "a zero-shot head",
     run_zero_shot,
     {"load", "output"},
     {"batch-size", "samples-per-class", "seed"}},
    {"prototypes",
     "--prototypes",
     run_prototypes,
     {"load", "dataset", "output"},
     {"classnames", "templates", "vocab"}},
    {"orthonormal",
     "--orthonormal",
     run_orthonormal,
     {"dataset", "output"},
     {"classnames", "templates", "vocab"}},
    {"tokens", "--tokens", run_tokens, {NULL}, {"classnames", "templates"}},
};

static mm_status choose_mode(const mm_options *o, const struct mode **chosen)
{
    *chosen = &modes[0];
    for (size_t i = 1; i < sizeof modes / sizeof *modes; i++) {
        if (!mm_options_is_given(o, modes[i].option))
            continue;
        if (*chosen != &modes[0])
            return mm_fail(
                MM_E_ARG,
                "choose one: --prototypes, --orthonormal or --tokens");
        *chosen = &modes[i];
    }
    for (const char *const *need = (*chosen)->needs; *need; need++)
        if (!mm_options_is_set(o, *need))
            return mm_fail(MM_E_ARG, "%s needs --%s", (*chosen)->what, *need);
    for (const char *const *other = (*chosen)->refuses; *other; other++)
        if (mm_options_is_given(o, *other))
            return mm_fail(MM_E_ARG, "%s and --%s exclude each other",
                           (*chosen)->what, *other);
    return MM_OK;
}

static mm_status work(const mm_job *job)
{
    const struct mode *mode = NULL;
    static const char *const inputs[] = {
        "load", "model", "dataset", "classnames", "templates", "vocab", NULL};
    MM_TRY(mm_comm_agree(job->comm, choose_mode(job->options, &mode)));
    MM_TRY(mm_job_check_output(job, "output", inputs));
    return mode->run(job);
}

int main(int argc, char **argv)
{
    return mm_program_main(&table, work, argc, argv);
}
