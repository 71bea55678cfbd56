/* Accuracy per task, task-aware and task-agnostic, and the optional file of
 * features and logits. */

#include "src/eval/evaluate.h"

#include "comm/check_same.h"
#include "comm/partition.h"
#include "io/hdf5/array_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct evaluation {
    const mm_evaluate_plan *plan;
    mm_task_score *scores;
    int64_t *samples; /* [n_samples] of any task, ascending */
    int64_t n_samples;
    /* This rank's share, kept only where it is to be written. */
    float *features, *logits;
    int32_t *labels;
    int64_t n_kept;
} evaluation;

/* ---- which images ------------------------------------------------------ */

static mm_status choose_samples(evaluation *e)
{
    const mm_task_list *tasks = e->plan->tasks;
    int64_t n = e->plan->dataset->test.n_images;
    bool *wanted = calloc((size_t)n + 1, sizeof *wanted);
    e->samples = malloc(((size_t)n + 1) * sizeof *e->samples);
    if (!wanted || !e->samples) {
        free(wanted);
        return mm_fail(MM_E_MEMORY, "no memory for %lld test images",
                       (long long)n);
    }
    for (int t = 0; t < tasks->n_tasks; t++)
        for (int64_t i = 0; i < tasks->tasks[t].n_test; i++)
            wanted[tasks->tasks[t].test[i]] = true;
    for (int64_t i = 0; i < n; i++)
        if (wanted[i])
            e->samples[e->n_samples++] = i;
    free(wanted);
    return MM_OK;
}

static bool is_in_task(const mm_task *task, int64_t sample)
{
    int64_t lo = 0, hi = task->n_test;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (task->test[mid] < sample)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < task->n_test && task->test[lo] == sample;
}

/* ---- counting ---------------------------------------------------------- */

static void score_sample(evaluation *e, int64_t sample, const float *logits)
{
    const mm_evaluate_plan *p = e->plan;
    int32_t label = p->dataset->test.labels[sample];
    int32_t best = 0;
    for (int32_t c = 1; c < p->head->n_classes; c++)
        if (logits[c] > logits[best])
            best = c;
    for (int t = 0; t < p->tasks->n_tasks; t++) {
        const mm_task *task = &p->tasks->tasks[t];
        if (!is_in_task(task, sample))
            continue;
        int32_t best_of_task = task->classes[0];
        for (int i = 1; i < task->n_classes; i++)
            if (logits[task->classes[i]] > logits[best_of_task])
                best_of_task = task->classes[i];
        e->scores[t].n_images++;
        e->scores[t].n_aware += best_of_task == label;
        e->scores[t].n_agnostic += best == label;
    }
}

static mm_status take(void *context, const mm_encoded *encoded)
{
    evaluation *e = context;
    int64_t n_classes = e->plan->head->n_classes;
    int64_t embed_dim = e->plan->head->embed_dim;
    for (int64_t i = 0; i < encoded->n; i++) {
        const float *logits = encoded->logits + i * n_classes;
        for (int64_t c = 0; c < n_classes; c++)
            if (!isfinite(logits[c]))
                return mm_fail(MM_E_VALUE, "test image %lld has logit %g",
                               (long long)encoded->samples[i],
                               (double)logits[c]);
        score_sample(e, encoded->samples[i], logits);
    }
    if (e->features) {
        memcpy(e->features + e->n_kept * embed_dim, encoded->features,
               (size_t)(encoded->n * embed_dim) * sizeof *e->features);
        memcpy(e->logits + e->n_kept * n_classes, encoded->logits,
               (size_t)(encoded->n * n_classes) * sizeof *e->logits);
        for (int64_t i = 0; i < encoded->n; i++)
            e->labels[e->n_kept + i] =
                e->plan->dataset->test.labels[encoded->samples[i]];
        e->n_kept += encoded->n;
    }
    return MM_OK;
}

static mm_status sum_scores(evaluation *e)
{
    int n_tasks = e->plan->tasks->n_tasks;
    enum { FIELDS = sizeof(mm_task_score) / sizeof(int64_t) };
    return mm_comm_sum_int64(e->plan->comm, (int64_t *)e->scores,
                             (int64_t)n_tasks * FIELDS);
}

/* ---- features ---------------------------------------------------------- */

static mm_status keep_features(evaluation *e)
{
    const mm_evaluate_plan *p = e->plan;
    mm_range mine = mm_partition(e->n_samples, mm_comm_rank(p->comm),
                                 mm_comm_n_ranks(p->comm));
    /* Rank 0 receives everything in place behind its own share. */
    int64_t n = mm_comm_rank(p->comm) == 0 ? e->n_samples : mine.hi - mine.lo;
    e->features = malloc((size_t)(n * p->head->embed_dim + 1) * sizeof(float));
    e->logits = malloc((size_t)(n * p->head->n_classes + 1) * sizeof(float));
    e->labels = malloc((size_t)(n + 1) * sizeof *e->labels);
    return e->features && e->logits && e->labels
               ? MM_OK
               : mm_fail(MM_E_MEMORY,
                         "no memory for the features of %lld images",
                         (long long)n);
}

static mm_status write_on_root(const evaluation *e, int64_t n)
{
    const mm_evaluate_plan *p = e->plan;
    mm_array arrays[] = {
        {"features", MM_ARRAY_F32, 2, {n, p->head->embed_dim}, e->features},
        {"logits", MM_ARRAY_F32, 2, {n, p->head->n_classes}, e->logits},
        {"labels", MM_ARRAY_I32, 1, {n}, e->labels},
    };
    return mm_array_file_write(p->features_path, arrays,
                               sizeof arrays / sizeof *arrays);
}

/** Bring one array's rows to rank 0, which has its own share in front already:
 * it sends nothing, and receives the others' behind it. */
static mm_status collect_rows(const evaluation *e, void *rows,
                              int64_t row_bytes)
{
    bool root = mm_comm_rank(e->plan->comm) == 0;
    int64_t n_bytes = e->n_kept * row_bytes;
    return mm_comm_collect(e->plan->comm, rows, root ? 0 : n_bytes,
                           root ? (char *)rows + n_bytes : NULL);
}

static mm_status write_features(const evaluation *e)
{
    const mm_evaluate_plan *p = e->plan;
    bool root = mm_comm_rank(p->comm) == 0;
    int64_t n = e->n_kept, elem = (int64_t)sizeof(float);
    MM_TRY(mm_comm_sum_int64(p->comm, &n, 1));
    MM_TRY(collect_rows(e, e->features, p->head->embed_dim * elem));
    MM_TRY(collect_rows(e, e->logits, p->head->n_classes * elem));
    MM_TRY(collect_rows(e, e->labels, (int64_t)sizeof *e->labels));
    return mm_comm_agree(p->comm, root ? write_on_root(e, n) : MM_OK);
}

mm_status mm_evaluate(const mm_evaluate_plan *plan, mm_task_score *scores)
{
    MM_TRY(MM_CHECK_SAME(
        plan->comm, MM_SAME_INT(plan->tasks->n_tasks),
        MM_SAME_INT(plan->batch_size), MM_SAME_INT(plan->bad != NULL),
        MM_SAME_TEXT(plan->features_path),
        MM_SAME_BYTES(plan->model->theta, 4 * plan->model->table.n_elems)));
    evaluation e = {.plan = plan, .scores = scores};
    memset(scores, 0, (size_t)plan->tasks->n_tasks * sizeof *scores);
    mm_status st = choose_samples(&e);
    if (st == MM_OK && plan->features_path)
        st = keep_features(&e);
    MM_TRY_GOTO(st, done, mm_comm_agree(plan->comm, st));
    mm_encode_plan encode = {
        .comm = plan->comm,
        .log = plan->log,
        .device = plan->device,
        .model = plan->model,
        .head = plan->head,
        .half = &plan->dataset->test,
        .samples = e.samples,
        .n_samples = e.n_samples,
        .batch_size = plan->batch_size,
        .n_workers = plan->n_workers,
        .bad = plan->bad,
        .take = take,
        .context = &e,
    };
    MM_TRY_GOTO(st, done, mm_encode(&encode));
    MM_TRY_GOTO(st, done, sum_scores(&e));
    if (plan->features_path)
        st = write_features(&e);
done:
    free(e.samples);
    free(e.features);
    free(e.logits);
    free(e.labels);
    return st;
}
