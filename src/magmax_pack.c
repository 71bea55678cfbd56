/* Any supported data set into one HDF5 file, in one or several domains. */

#include "io/file.h"
#include "src/base/names.h"
#include "src/program.h"
#include "src/tasks/dataset.h"
#include "src/tasks/domains.h"

#include <stdlib.h>

static const mm_option rows[] = {
    {.name = "dataset",
     .kind = MM_OPTION_TEXT,
     .value = "NAME|FILE",
     .required = true,
     .help = "FashionMNIST, MNIST, or the path of a .npz or packed .h5 file"},
    {.name = "data-location",
     .kind = MM_OPTION_TEXT,
     .value = "DIR",
     .help = "folder of a data set that is given by name"},
    {.name = "domains",
     .kind = MM_OPTION_TEXT,
     .value = "A,B,...",
     .help = "store every image in each of these domains: upright, rot90, "
             "invert, noise, pixelate"},
    {.name = "samples-per-class",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "0",
     .min = 0,
     .max = 1e15,
     .help = "keep the first N training images of each class and domain; 0: "
             "all"},
    {.name = "seed",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "5",
     .min = 0,
     .max = 9e15,
     .help = "of the noise"},
    {.name = "output",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .letter = 'o',
     .required = true,
     .help = "packed data set to write"},
};

static const mm_option_table table = {
    .program = "magmax_pack",
    .purpose = "Pack a data set of images into one HDF5 file",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
};

static void report(const mm_job *job, const char *path, const mm_dataset *d)
{
    mm_log_line(job->log,
                "%s: %lld training and %lld test images, %d classes, "
                "%d domain%s",
                path, (long long)d->train.n_images, (long long)d->test.n_images,
                d->n_classes, d->n_domains > 1 ? d->n_domains : 1,
                d->n_domains > 1 ? "s" : "");
}

static mm_status write_packed(const mm_job *job, const mm_dataset *dataset)
{
    const char *path = mm_options_text(job->options, "output");
    mm_status st = mm_fail(MM_E_MEMORY, "no memory for a record of options");
    char *provenance = NULL;
    json_t *record =
        json_pack("{s:s, s:s, s:o*}", "program", table.program, "version",
                  MAGMAX_VERSION, "options", mm_options_record(job->options));
    if (!record)
        return st;
    provenance = json_dumps(record, JSON_COMPACT);
    if (!provenance)
        goto done;
    MM_TRY_GOTO(st, done, mm_dataset_file_write(path, dataset, provenance));
    report(job, path, dataset);
done:
    free(provenance);
    json_decref(record);
    return st;
}

static mm_status pack(const mm_job *job, const mm_domains_plan *plan)
{
    const mm_options *options = job->options;
    const char *name = mm_options_text(options, "dataset");
    const char *path = mm_options_text(options, "output");
    mm_dataset *source = NULL, *made = NULL;
    mm_status st = MM_OK;

    MM_TRY_GOTO(st, done,
                mm_dataset_open(name, mm_options_text(options, "data-location"),
                                &source));
    if (mm_file_same(name, path)) {
        st = mm_fail(MM_E_ARG, "-o %s is the data set that is read", path);
        goto done;
    }
    /* As it is: straight from the opened file, without a copy in memory. */
    if (plan->n_names == 0 && plan->train_a_class == 0) {
        st = write_packed(job, source);
        goto done;
    }
    MM_TRY_GOTO(st, done, mm_domains_make(source, plan, job->log, &made));
    st = write_packed(job, made);
done:
    mm_domains_destroy(&made);
    mm_dataset_close(&source);
    return st;
}

/** Rank 0 packs; the others wait for its status. */
static mm_status work(const mm_job *job)
{
    const char *list = mm_options_text(job->options, "domains");
    char **names = NULL;
    mm_domains_plan plan = {
        .train_a_class = mm_options_int(job->options, "samples-per-class"),
        .seed = (uint64_t)mm_options_int(job->options, "seed"),
    };
    if (list)
        MM_TRY(mm_names_split(list, &names, &plan.n_names));
    plan.names = (const char *const *)names;
    mm_status st = mm_domains_check(plan.names, plan.n_names);
    if (st == MM_OK && mm_comm_rank(job->comm) == 0)
        st = pack(job, &plan);
    free(names);
    return st;
}

int main(int argc, char **argv)
{
    return mm_program_main(&table, work, argc, argv);
}
