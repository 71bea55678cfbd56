/* The program that packs a data set into one HDF5 file, in one or several
 * domains. */

#include "io/file.h"
#include "src/base/names.h"
#include "src/data/domains.h"
#include "src/data/open_data.h"
#include "src/data/pack.h"
#include "src/programs/workload.h"

#include <stdlib.h>

static const mm_option rows[] = {
    {.name = "dataset",
     .kind = MM_OPTION_TEXT,
     .value = "NAME|FILE",
     .required = true,
     .help = "FashionMNIST, MNIST, or the path of a .npz or packed .h5 file, "
             "or of a folder of class folders of images"},
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
    {.name = "resize",
     .kind = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 65536,
     .help = "store images as evaluation makes them: the shorter side resized "
             "to N, the middle N x N, three channels; without it, the bytes "
             "of the files"},
    MM_ROW_SKIP_BAD,
    {.name = "seed",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "5",
     .min = 0,
     .max = 9e15,
     .help = "seed of the noise"},
    {.name = "output",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .letter = 'o',
     .required = true,
     .help = "packed data set to write"},
    MM_ROW_RANK_TIMEOUT,
};

static const mm_option_table table = {
    .program = "magmax_pack",
    .purpose = "Pack a data set of images into one HDF5 file",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
};

static void report(const mm_job *job, const char *path, const mm_dataset *d,
                   const mm_packed_counts *n)
{
    char what[96], skipped[64] = "";
    snprintf(what, sizeof what, "%lld training and %lld test",
             (long long)n->n_train, (long long)n->n_test);
    if (d->same_halves)
        snprintf(what, sizeof what, "%lld", (long long)n->n_train);
    if (n->n_skipped)
        snprintf(skipped, sizeof skipped, "; %lld skipped",
                 (long long)n->n_skipped);
    mm_log_line(job->log, "%s: %s images, %d classes, %d domain%s%s", path,
                what, d->n_classes, d->n_domains > 1 ? d->n_domains : 1,
                d->n_domains > 1 ? "s" : "", skipped);
}

/** For pixels that are in memory or mapped already. */
static mm_status write_packed(const mm_job *job, const mm_dataset *dataset,
                              const char *provenance)
{
    const char *path = mm_options_text(job->options, "output");
    mm_packed_counts counts = {dataset->train.n_images, dataset->test.n_images,
                               0};
    MM_TRY(mm_dataset_write(path, dataset, provenance));
    report(job, path, dataset, &counts);
    return MM_OK;
}

static mm_status pack_domains(const mm_job *job, const mm_dataset *source,
                              const mm_domains_plan *plan,
                              const char *provenance)
{
    mm_dataset *made = NULL;
    MM_TRY(mm_domains_create(source, plan, job->log, &made));
    mm_status st = write_packed(job, made, provenance);
    mm_domains_destroy(&made);
    return st;
}

static mm_status pack_images(const mm_job *job, const mm_dataset *source,
                             int64_t train_per_class, const char *provenance)
{
    const mm_options *options = job->options;
    const char *path = mm_options_text(options, "output");
    mm_packed_counts counts;
    mm_pack_plan plan = {
        .size = mm_options_is_set(options, "resize")
                    ? mm_options_int(options, "resize")
                    : 0,
        .train_per_class = train_per_class,
        .n_threads = mm_comm_n_threads(job->comm),
        .provenance = provenance,
        .skip_bad = mm_options_flag(options, "skip-bad-images"),
        .log = job->log,
    };
    MM_TRY(mm_pack(source, &plan, path, &counts));
    report(job, path, source, &counts);
    return MM_OK;
}

static mm_status pack_source(const mm_job *job, const mm_dataset *source,
                             const mm_domains_plan *plan,
                             const char *provenance)
{
    bool resize = mm_options_is_set(job->options, "resize");
    bool raw = source->train.storage == MM_STORED_PIXELS &&
               source->test.storage == MM_STORED_PIXELS;
    if (source->note)
        mm_log_line(job->log, "%s", source->note);
    if (plan->n_names > 0 && resize)
        return mm_fail(MM_E_ARG, "--resize and --domains exclude each other; "
                                 "make domains from the resized file");
    if (plan->n_names > 0 || (raw && !resize && plan->train_per_class > 0))
        return pack_domains(job, source, plan, provenance);
    if (raw && !resize)
        return write_packed(job, source, provenance);
    return pack_images(job, source, plan->train_per_class, provenance);
}

static mm_status pack(const mm_job *job, const mm_domains_plan *plan)
{
    const mm_options *options = job->options;
    const char *name = mm_options_text(options, "dataset");
    mm_dataset *source = NULL;
    char *provenance = NULL;
    mm_status st = MM_OK;

    MM_TRY_GOTO(st, done,
                mm_dataset_open(NULL, name,
                                mm_options_text(options, "data-location"),
                                &source));
    provenance = mm_workload_provenance(job, table.program);
    st = provenance ? pack_source(job, source, plan, provenance)
                    : mm_fail(MM_E_MEMORY, "no memory for the provenance");
done:
    free(provenance);
    mm_dataset_close(&source);
    return st;
}

/** Rank 0 packs; the others wait for its status. */
static mm_status work(const mm_job *job)
{
    const char *list = mm_options_text(job->options, "domains");
    char **names = NULL;
    mm_domains_plan plan = {
        .train_per_class = mm_options_int(job->options, "samples-per-class"),
        .seed = (uint64_t)mm_options_int(job->options, "seed"),
    };
    static const char *const inputs[] = {"dataset", NULL};
    MM_TRY(mm_job_check_output(job, "output", inputs));
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
