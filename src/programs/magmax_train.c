/* The program that fine-tunes over a sequence of tasks; the work is in
 * src/train/sequence.c. */

#include "src/programs/workload.h"
#include "src/train/sequence.h"

#include <stdlib.h>
#include <string.h>

static const mm_option rows[] = {
    MM_ROW_MODEL,
    MM_ROW_DEVICE,
    MM_ROW_PRECISION,
    {.name = "load",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "pre-trained weights (theta_0): HDF5, safetensors or PyTorch's"},
    {.name = "from-scratch",
     .kind = MM_OPTION_FLAG,
     .help = "start from random weights instead"},
    MM_ROW_DATASET,
    MM_ROW_DATA_LOCATION,
    MM_ROW_HEAD,
    MM_ROW_N_SPLITS,
    MM_ROW_SPLIT_STRATEGY,
    {.name = "sequential-finetuning",
     .kind = MM_OPTION_FLAG,
     .help = "start each task from the last one's weights; without it, every "
             "task starts from --load"},
    {.name = "save",
     .kind = MM_OPTION_TEXT,
     .value = "DIR",
     .required = true,
     .free = true,
     .help = "folder of the run; the same command again continues it"},
    {.name = "epochs",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "10",
     .min = 1,
     .max = 1e9,
     .help = "passes over each task"},
    {.name = "batch-size",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "128",
     .min = 1,
     .max = 1e9,
     .help = "images per step, over all ranks"},
    {.name = "accumulate",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "1",
     .min = 1,
     .max = 1e9,
     .free = true,
     .help = "cut a rank's images of a batch into N parts, whose gradients add "
             "up: less memory"},
    {.name = "grad-checkpoint",
     .kind = MM_OPTION_FLAG,
     .free = true,
     .help = "keep only each block's input and compute the rest again in the "
             "backward pass: less memory, a third more time, the same bits"},
    {.name = "lr",
     .kind = MM_OPTION_REAL,
     .value = "X",
     .fallback = "1e-5",
     .min = 0,
     .max = 1e6,
     .help = "peak learning rate"},
    {.name = "wd",
     .kind = MM_OPTION_REAL,
     .value = "X",
     .fallback = "0.1",
     .min = 0,
     .max = 1e6,
     .help = "AdamW's weight decay"},
    {.name = "ls",
     .kind = MM_OPTION_REAL,
     .value = "X",
     .fallback = "0",
     .min = 0,
     .max = 1,
     .help = "label smoothing"},
    {.name = "clip",
     .kind = MM_OPTION_REAL,
     .value = "X",
     .fallback = "1",
     .min = 0,
     .max = 1e30,
     .help = "largest norm of the gradient; 0: any"},
    {.name = "warmup-length",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "500",
     .min = 0,
     .max = 1e12,
     .help = "steps of linear warm-up in each task"},
    {.name = "warmup-ratio",
     .kind = MM_OPTION_REAL,
     .value = "R",
     .min = 0,
     .max = 1,
     .help = "warm-up as a share of the task's steps instead"},
    MM_ROW_SEED,
    {.name = "no-shuffle",
     .kind = MM_OPTION_FLAG,
     .help = "take images in the data set's order"},
    {.name = "no-augment",
     .kind = MM_OPTION_FLAG,
     .help = "no random crops: images as for evaluation"},
    MM_ROW_SAMPLES_PER_CLASS("training"),
    MM_ROW_WORKERS,
    MM_ROW_SKIP_BAD,
    {.name = "reduce-dtype",
     .kind = MM_OPTION_CHOICE,
     .value = "TYPE",
     .fallback = "fp32",
     .choices = "fp32,bf16",
     .help = "number type in which gradients travel between GPUs; bf16 halves "
             "the bytes and rounds the sums"},
    MM_ROW_RANK_TIMEOUT,
};

static const mm_option_table table = {
    .program = "magmax_train",
    .purpose = "Fine-tune a Vision Transformer over a sequence of tasks, with "
               "one checkpoint per task",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

static mm_status check_options(const mm_options *o)
{
    if (mm_options_flag(o, "from-scratch") && mm_options_is_set(o, "load"))
        return mm_fail(MM_E_ARG,
                       "--from-scratch and --load exclude each other");
    if (!mm_options_flag(o, "from-scratch") && !mm_options_is_set(o, "load"))
        return mm_fail(MM_E_ARG, "--load or --from-scratch is required");
    if (mm_options_is_given(o, "warmup-ratio") &&
        mm_options_is_given(o, "warmup-length"))
        return mm_fail(MM_E_ARG,
                       "--warmup-ratio and --warmup-length exclude each other");
    return MM_OK;
}

static mm_status run_sequence(const mm_job *job, mm_workload *work,
                              mm_run_dir *dir, const char *provenance)
{
    const mm_options *o = job->options;
    mm_sequence_plan plan = {
        .comm = job->comm,
        .log = job->log,
        .device = work->device,
        .dir = dir,
        .dataset = work->dataset,
        .tasks = &work->tasks,
        .head = &work->head,
        .provenance = provenance,
        .sequential = mm_options_flag(o, "sequential-finetuning"),
        .epochs = mm_options_int(o, "epochs"),
        .batch_size = mm_options_int(o, "batch-size"),
        .accumulate = mm_options_int(o, "accumulate"),
        .recompute = mm_options_flag(o, "grad-checkpoint"),
        .lr = mm_options_real(o, "lr"),
        .weight_decay = mm_options_real(o, "wd"),
        .label_smoothing = mm_options_real(o, "ls"),
        .clip = mm_options_real(o, "clip"),
        .warmup_length = mm_options_int(o, "warmup-length"),
        .warmup_ratio = mm_options_is_set(o, "warmup-ratio")
                            ? mm_options_real(o, "warmup-ratio")
                            : -1,
        .reduce_bf16 = !strcmp(mm_options_text(o, "reduce-dtype"), "bf16"),
        .seed = (uint64_t)mm_options_int(o, "seed"),
        .shuffle = !mm_options_flag(o, "no-shuffle"),
        .augment = !mm_options_flag(o, "no-augment"),
        .n_workers = mm_workload_n_workers(o),
        .bad = work->bad,
    };
    MM_TRY(mm_sequence_run(&plan, &work->model));
    mm_workload_report_bad(job, work);
    return MM_OK;
}

static mm_status train(const mm_job *job)
{
    mm_workload work = {0};
    mm_run_dir *dir = NULL;
    char *provenance = NULL;
    mm_status st = check_options(job->options);
    MM_TRY_GOTO(st, done, mm_comm_agree(job->comm, st));
    MM_TRY_GOTO(
        st, done,
        mm_workload_open_model(
            job, true, (uint64_t)mm_options_int(job->options, "seed"), &work));
    MM_TRY_GOTO(st, done, mm_workload_open_dataset(job, &work));
    MM_TRY_GOTO(st, done, mm_workload_open_tasks(job, true, &work));
    MM_TRY_GOTO(st, done,
                mm_workload_open_bad(job, &work.dataset->train, &work));
    provenance = mm_workload_provenance(job, table.program);
    st = provenance ? MM_OK
                    : mm_fail(MM_E_MEMORY, "no memory for the provenance");
    MM_TRY_GOTO(st, done, mm_comm_agree(job->comm, st));
    MM_TRY_GOTO(st, done,
                mm_run_dir_open(job->comm,
                                mm_options_text(job->options, "save"),
                                table.program, job->options, &dir));
    st = run_sequence(job, &work, dir, provenance);
done:
    mm_run_dir_close(&dir);
    free(provenance);
    mm_workload_close(&work);
    return st;
}

int main(int argc, char **argv)
{
    return mm_program_main(&table, train, argc, argv);
}
