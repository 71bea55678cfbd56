/* Packing the images of a data set into one HDF5 file with several threads; bad
 * images are found on the way. */

#include "src/data/pack.h"

#include "io/dataset/sample.h"
#include "io/dataset/write_packed.h"
#include "src/data/task.h"
#include "src/image/transform.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one thread reads and transforms with. */
typedef struct workspace {
    mm_sample_reader *reader;
    mm_transform *transform;
    uint8_t *out;
} workspace;

/* One half of the data set: what is kept of it, and what it becomes. */
typedef struct selection {
    const mm_half *from;
    mm_half *to;
    int64_t *kept; /* [n_kept] indices into `from`, ascending */
    int64_t n_kept;
    bool *is_bad; /* [n_kept] */
} selection;

typedef struct packer {
    const mm_pack_plan *plan;
    const mm_dataset *source;
    mm_dataset made; /* names are the source's */
    selection halves[2];
    mm_packed_writer *writer;
    mm_bad_images *bad[2];
    int64_t n_done, n_bad; /* in this attempt */
} packer;

/* ---- what is kept ------------------------------------------------------ */

static mm_status keep(selection *h, const mm_half *from, mm_half *to,
                      const int64_t *samples, int64_t n)
{
    h->from = from;
    h->to = to;
    h->n_kept = n;
    h->kept = malloc((size_t)n * sizeof *h->kept + 1);
    h->is_bad = calloc((size_t)n + 1, sizeof *h->is_bad);
    if (!h->kept || !h->is_bad)
        return mm_fail(MM_E_MEMORY, "no memory for %lld images", (long long)n);
    if (n > 0)
        memcpy(h->kept, samples, (size_t)n * sizeof *h->kept);
    return MM_OK;
}

static mm_status choose(packer *p)
{
    const mm_dataset *source = p->source;
    /* One task that holds everything: what the limit keeps. */
    mm_split_plan everything = {.strategy = MM_SPLIT_NONE,
                                .n_classes = source->n_classes,
                                .train_per_class = p->plan->train_per_class};
    mm_task_list list = {0};
    MM_TRY(mm_task_list_init(source, &everything, &list));
    const mm_task *all = &list.tasks[0];
    int64_t n_test = source->same_halves ? 0 : all->n_test;
    mm_status st = keep(&p->halves[0], &source->train, &p->made.train,
                        all->train, all->n_train);
    if (st == MM_OK)
        st = keep(&p->halves[1], &source->test, &p->made.test, all->test,
                  n_test);
    mm_task_list_clear(&list);
    return st;
}

static void drop_bad(selection *h)
{
    int64_t n = 0;
    for (int64_t i = 0; i < h->n_kept; i++)
        if (!h->is_bad[i])
            h->kept[n++] = h->kept[i];
    h->n_kept = n;
    memset(h->is_bad, 0, (size_t)n * sizeof *h->is_bad);
}

/* ---- the file's form --------------------------------------------------- */

static void clear_half(mm_half *half)
{
    free(half->labels);
    free(half->domains);
    free(half->path_starts);
    free(half->offsets);
    *half = (mm_half){0};
}

static mm_status set_offsets(const selection *h, int n_threads)
{
    int64_t *offsets = h->to->offsets;
    mm_status worst = MM_OK;
    char message[512] = "";
    offsets[0] = 0;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 64)
    for (int64_t i = 0; i < h->n_kept; i++) {
        mm_status st = mm_sample_n_bytes(h->from, h->kept[i], &offsets[i + 1]);
        if (st != MM_OK) {
#pragma omp critical
            {
                worst = st;
                snprintf(message, sizeof message, "%s", mm_fail_message());
            }
        }
    }
    if (worst != MM_OK)
        return mm_fail(worst, "%s", message);
    for (int64_t i = 0; i < h->n_kept; i++)
        offsets[i + 1] += offsets[i];
    return MM_OK;
}

static mm_status set_form(const packer *p, const selection *h)
{
    const mm_half *from = h->from;
    mm_half *to = h->to;
    size_t n = (size_t)h->n_kept + 1; /* never an empty block */
    int64_t size = p->plan->size;
    *to = (mm_half){.n_images = h->n_kept,
                    .storage = size ? MM_STORED_PIXELS : MM_STORED_BYTES,
                    .height = size,
                    .width = size,
                    .channels = 3,
                    .paths = from->paths};
    to->labels = malloc(n * sizeof *to->labels);
    to->domains = from->domains ? malloc(n * sizeof *to->domains) : NULL;
    to->path_starts =
        from->path_starts ? malloc(n * sizeof *to->path_starts) : NULL;
    to->offsets = size ? NULL : malloc(n * sizeof *to->offsets);
    if (!to->labels || (from->domains && !to->domains) ||
        (from->path_starts && !to->path_starts) || (!size && !to->offsets))
        return mm_fail(MM_E_MEMORY, "no memory for %lld images",
                       (long long)h->n_kept);
    for (int64_t i = 0; i < h->n_kept; i++) {
        to->labels[i] = from->labels[h->kept[i]];
        if (to->domains)
            to->domains[i] = from->domains[h->kept[i]];
        if (to->path_starts)
            to->path_starts[i] = from->path_starts[h->kept[i]];
    }
    return size ? MM_OK : set_offsets(h, p->plan->n_threads);
}

/* ---- the images -------------------------------------------------------- */

static mm_status create_workspace(const packer *p, const selection *h,
                                  workspace *made)
{
    MM_TRY(mm_sample_reader_create(h->from, &made->reader));
    int64_t size = p->plan->size;
    if (!size)
        return MM_OK;
    MM_TRY(mm_transform_create(size, &made->transform));
    made->out = malloc((size_t)(size * size * 3));
    return made->out ? MM_OK
                     : mm_fail(MM_E_MEMORY, "no memory to resize images");
}

static void destroy_workspaces(workspace **workspaces, int n)
{
    for (int i = 0; *workspaces && i < n; i++) {
        mm_sample_reader_destroy(&(*workspaces)[i].reader);
        mm_transform_destroy(&(*workspaces)[i].transform);
        free((*workspaces)[i].out);
    }
    free(*workspaces);
    *workspaces = NULL;
}

static mm_status pack_resized(packer *p, const selection *h, workspace *with,
                              int64_t i)
{
    int64_t sample = h->kept[i],
            image_bytes = p->plan->size * p->plan->size * 3;
    char name[MM_SAMPLE_NAME_BYTES];
    mm_image image;
    MM_TRY(mm_sample_read(with->reader, sample, &image));
    mm_status st = mm_transform_evaluation(with->transform, &image, with->out);
    if (st != MM_OK) {
        mm_sample_name(h->from, sample, name);
        return mm_fail_within(st, "%s", name);
    }
    return mm_packed_writer_write(p->writer, h->to, i * image_bytes, with->out,
                                  image_bytes);
}

static mm_status pack_bytes(packer *p, const selection *h, workspace *with,
                            int64_t i)
{
    const uint8_t *bytes;
    int64_t n_bytes, sample = h->kept[i];
    const int64_t *offsets = h->to->offsets;
    char name[MM_SAMPLE_NAME_BYTES];
    mm_image image;
    MM_TRY(mm_sample_read(with->reader, sample, &image));
    MM_TRY(mm_sample_read_bytes(with->reader, sample, &bytes, &n_bytes));
    if (n_bytes != offsets[i + 1] - offsets[i]) {
        mm_sample_name(h->from, sample, name);
        return mm_fail(MM_E_IO, "%s changed while it was packed", name);
    }
    return mm_packed_writer_write(p->writer, h->to, offsets[i], bytes, n_bytes);
}

/* The first failure of a half. */
typedef struct failure {
    int64_t at;
    mm_status status;
    char message[512];
} failure;

static bool may_skip(const packer *p, mm_status st)
{
    return p->plan->skip_bad && (st == MM_E_FORMAT || st == MM_E_VALUE);
}

/* One thread at a time. */
static void note_failure(packer *p, const selection *h, int64_t i, mm_status st,
                         failure *first)
{
    mm_bad_image bad = {.sample = h->kept[i]};
    if (may_skip(p, st)) {
        snprintf(bad.why, sizeof bad.why, "%s", mm_fail_message());
        h->is_bad[i] = true;
        p->n_bad++;
        st = mm_bad_images_add(p->bad[h == &p->halves[1]], &bad, 1);
    }
    if (st != MM_OK && i < first->at) {
        first->at = i;
        first->status = st;
        snprintf(first->message, sizeof first->message, "%s",
                 mm_fail_message());
    }
}

static mm_status pack_half(packer *p, const selection *h)
{
    int n_threads = p->plan->n_threads;
    workspace *workspaces = calloc((size_t)n_threads, sizeof *workspaces);
    failure first = {.at = h->n_kept};
    mm_status st =
        workspaces ? MM_OK : mm_fail(MM_E_MEMORY, "no memory to read images");
    for (int i = 0; i < n_threads && st == MM_OK; i++)
        st = create_workspace(p, h, &workspaces[i]);
    if (st != MM_OK)
        goto done;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic)
    for (int64_t i = 0; i < h->n_kept; i++) {
        int64_t limit, n_done;
#pragma omp atomic read
        limit = first.at;
        if (i > limit)
            continue;
        workspace *mine = &workspaces[omp_get_thread_num()];
        mm_status one = p->plan->size ? pack_resized(p, h, mine, i)
                                      : pack_bytes(p, h, mine, i);
        if (one != MM_OK) {
#pragma omp critical
            note_failure(p, h, i, one, &first);
        }
#pragma omp atomic capture
        n_done = ++p->n_done;
        if (omp_get_thread_num() == 0)
            mm_progress_update(p->plan->log, n_done, NULL);
    }
    if (first.status != MM_OK)
        st = mm_fail(first.status, "%s", first.message);
done:
    destroy_workspaces(&workspaces, n_threads);
    return st;
}

/* ---- all of it --------------------------------------------------------- */

/* Where p->n_bad > 0 afterwards, the file was not written. */
static mm_status attempt(packer *p, const char *path)
{
    p->n_done = p->n_bad = 0;
    for (int i = 0; i < 2; i++) {
        clear_half(p->halves[i].to);
        MM_TRY(set_form(p, &p->halves[i]));
    }
    MM_TRY(mm_packed_writer_begin(path, &p->made, p->plan->provenance,
                                  &p->writer));
    mm_progress_begin(p->plan->log, "packing", "images",
                      p->halves[0].n_kept + p->halves[1].n_kept);
    mm_status st = MM_OK;
    for (int i = 0; i < 2 && st == MM_OK; i++)
        st = pack_half(p, &p->halves[i]);
    mm_progress_update(p->plan->log, p->n_done, NULL);
    if (st == MM_OK && p->n_bad == 0)
        mm_progress_end(p->plan->log);
    bool again = st == MM_OK && p->n_bad > 0;
    st = mm_packed_writer_commit(&p->writer, again ? MM_E_FORMAT : st);
    return again ? MM_OK : st;
}

/** Images have their place in the file before they are decoded, so where bad
 * ones are found the file is written again without them. */
static mm_status pack_without_bad(packer *p, const char *path)
{
    for (;;) {
        MM_TRY(attempt(p, path));
        if (p->n_bad == 0)
            return MM_OK;
        for (int i = 0; i < 2; i++) {
            drop_bad(&p->halves[i]);
            MM_TRY(mm_bad_images_share(p->bad[i], NULL, p->plan->log));
        }
    }
}

static void name_as_source(packer *p)
{
    const mm_dataset *source = p->source;
    p->made.same_halves = source->same_halves;
    p->made.n_classes = source->n_classes;
    p->made.class_names = source->class_names;
    p->made.n_domains = source->n_domains;
    p->made.domain_names = source->domain_names;
}

mm_status mm_pack(const mm_dataset *source, const mm_pack_plan *plan,
                  const char *path, mm_packed_counts *counts)
{
    packer p = {.plan = plan, .source = source};
    mm_status st = MM_OK;
    if (!plan->size && (source->train.storage == MM_STORED_PIXELS ||
                        source->test.storage == MM_STORED_PIXELS))
        return mm_fail(MM_E_ARG, "%s holds raw pixels: --resize is required",
                       source->name);
    name_as_source(&p);
    MM_TRY_GOTO(st, done, mm_bad_images_create(&source->train, &p.bad[0]));
    MM_TRY_GOTO(st, done, mm_bad_images_create(&source->test, &p.bad[1]));
    MM_TRY_GOTO(st, done, choose(&p));
    MM_TRY_GOTO(st, done, pack_without_bad(&p, path));
    *counts = (mm_packed_counts){p.halves[0].n_kept, p.halves[1].n_kept,
                                 mm_bad_images_count(p.bad[0]) +
                                     mm_bad_images_count(p.bad[1])};
done:
    for (int i = 0; i < 2; i++) {
        mm_bad_images_destroy(&p.bad[i]);
        free(p.halves[i].kept);
        free(p.halves[i].is_bad);
    }
    clear_half(&p.made.train);
    clear_half(&p.made.test);
    return st;
}
