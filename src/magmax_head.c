#include "io/array_file.h"
#include "src/eval/prototypes.h"
#include "src/workload.h"

#include <stdlib.h>

static const mm_option rows[] = {
    {.name = "prototypes",
     .kind = MM_OPTION_FLAG,
     .help = "rows are the means of each class's training features"},
    {.name = "orthonormal",
     .kind = MM_OPTION_FLAG,
     .help = "rows are a fixed orthonormal set, a function of --seed"},
    MM_ROW_MODEL,
    MM_ROW_DEVICE,
    {.name = "load",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "weights that encode the images of --prototypes"},
    MM_ROW_DATASET,
    MM_ROW_DATA_LOCATION,
    {.name = "scale",
     .kind = MM_OPTION_REAL,
     .value = "X",
     .fallback = "100",
     .min = 1e-6,
     .max = 1e6,
     .help = "length of each row: exp(logit_scale), 100 in CLIP's weights"},
    {.name = "batch-size",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "128",
     .min = 1,
     .max = 1e6,
     .help = "images at a time on each rank"},
    MM_ROW_SEED,
    MM_ROW_SAMPLES_PER_CLASS("training"),
    {.name = "output",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .letter = 'o',
     .required = true,
     .help = "the head, an HDF5 file"},
};

static const mm_option_table table = {
    .program = "magmax_head",
    .purpose = "Make a frozen classification head for a data set",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

static mm_status check_options(const mm_options *o)
{
    bool prototypes = mm_options_flag(o, "prototypes");
    if (prototypes == mm_options_flag(o, "orthonormal"))
        return mm_fail(MM_E_ARG, "choose one: --prototypes or --orthonormal");
    if (prototypes && !mm_options_is_set(o, "load"))
        return mm_fail(MM_E_ARG, "--prototypes needs the weights of --load");
    return MM_OK;
}

static mm_status make_prototypes(const mm_job *job, mm_workload *work,
                                 mm_head *head)
{
    const mm_options *o = job->options;
    mm_split_plan split = {
        .strategy = MM_SPLIT_NONE,
        .n_classes = work->dataset->n_classes,
        .train_a_class = mm_options_is_set(o, "samples-per-class")
                             ? mm_options_int(o, "samples-per-class")
                             : 0,
        .need_train = true,
    };
    MM_TRY(mm_comm_agree(
        job->comm, mm_task_list_make(work->dataset, &split, &work->tasks)));
    mm_encode_plan plan = {
        .comm = job->comm,
        .log = job->log,
        .device = work->device,
        .model = &work->model,
        .split = &work->dataset->train,
        .batch_size = mm_options_int(o, "batch-size"),
    };
    return mm_prototypes_make(&plan, &work->tasks.tasks[0],
                              mm_options_real(o, "scale"), head);
}

static mm_status write_head(const mm_job *job, const mm_head *head)
{
    char *provenance = mm_workload_provenance(job, table.program);
    if (!provenance)
        return mm_fail(MM_E_MEMORY, "no memory for a record");
    mm_array arrays[] = {
        {"weight",
         MM_ARRAY_F32,
         2,
         {head->n_classes, head->embed_dim},
         head->weight},
        {"provenance", MM_ARRAY_TEXT, 0, {0}, provenance},
    };
    mm_status st = mm_array_file_write(mm_options_text(job->options, "output"),
                                       arrays, sizeof arrays / sizeof *arrays);
    free(provenance);
    return st;
}

static mm_status make_head(const mm_job *job)
{
    const mm_options *o = job->options;
    mm_workload work = {0};
    mm_head head = {0};
    mm_status st;
    MM_TRY_GOTO(st, done, mm_comm_agree(job->comm, check_options(o)));
    MM_TRY_GOTO(st, done, mm_workload_open_model(job, 0, &work));
    MM_TRY_GOTO(st, done, mm_workload_open_dataset(job, &work));
    if (mm_options_flag(o, "prototypes"))
        st = make_prototypes(job, &work, &head);
    else
        st = mm_orthonormal_make(work.dataset->n_classes,
                                 work.model.config.embed_dim,
                                 mm_options_real(o, "scale"),
                                 (uint64_t)mm_options_int(o, "seed"), &head);
    MM_TRY_GOTO(st, done, mm_comm_agree(job->comm, st));
    if (mm_comm_rank(job->comm) == 0)
        st = write_head(job, &head);
done:
    mm_head_clear(&head);
    mm_workload_close(&work);
    return st;
}

int main(int argc, char **argv)
{
    return mm_program_main(&table, make_head, argc, argv);
}
