/* Training over a sequence of tasks: epochs, logging, checkpoints, and going on
 * with an interrupted run. */

#include "src/train/sequence.h"

#include "comm/check_same.h"
#include "io/weights/checksum.h"
#include "io/weights/weights.h"
#include "io/weights/weights_writer.h"
#include "src/base/clock.h"
#include "src/input/loader.h"
#include "src/train/schedule.h"
#include "src/train/step.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** What the tasks of a run share. */
typedef struct sequence {
    const mm_sequence_plan *plan;
    mm_model *model;
    float *theta_0; /* kept where tasks do not follow each other */
    mm_loader *loader;
    mm_stepper *stepper;
    mm_step_entry under_way; /* of the step whose result is not known yet */
    double last_loss;
} sequence;

static int64_t warmup_steps(const mm_sequence_plan *plan, int64_t n_steps)
{
    return plan->warmup_ratio < 0
               ? plan->warmup_length
               : (int64_t)(plan->warmup_ratio * (double)n_steps);
}

/* ---- one task ---------------------------------------------------------- */

/**
 * Where images may be skipped: how many the global batch has left, and which
 * were skipped. All ranks learn here whether one of them failed.
 */
static mm_status agree_on_batch(const sequence *s, mm_status st,
                                mm_batch *batch, int64_t *n_skipped)
{
    const mm_sequence_plan *plan = s->plan;
    if (st == MM_OK)
        st = mm_bad_images_add(plan->bad, batch->bad, batch->n_bad);
    int64_t totals[3] = {batch->n_images, batch->n_bad, st != MM_OK};
    MM_TRY(mm_comm_sum_int64(plan->comm, totals, 3));
    if (totals[2] > 0)
        return mm_comm_agree(plan->comm, st);
    batch->n_global = totals[0];
    *n_skipped = totals[1];
    return totals[1] > 0 ? mm_bad_images_share(plan->bad, plan->comm, plan->log)
                         : MM_OK;
}

static bool is_finite(const mm_step_result *result)
{
    return isfinite(result->loss) && isfinite(result->grad_norm);
}

/**
 * Log the step that was under way, if there was one. `st` is how waiting for it
 * went; what it says of values is of that step where the result shows it, else
 * of `entry`'s.
 */
static mm_status take_result(sequence *s, mm_status st,
                             const mm_step_result *result,
                             const mm_step_entry *entry)
{
    mm_step_entry *r = &s->under_way;
    bool known = result->n_images > 0 && is_finite(result);
    if (known) {
        r->loss = s->last_loss = result->loss;
        r->grad_norm = result->grad_norm;
        mm_run_dir_log_step(s->plan->dir, r);
    } else if (result->n_images > 0) {
        entry = r;
    }
    return st != MM_E_VALUE
               ? st
               : mm_fail_within(st, "task %d, epoch %lld, step %lld",
                                entry->task, (long long)entry->epoch,
                                (long long)entry->step);
}

static mm_status finish_step(sequence *s)
{
    mm_step_result last = {0};
    mm_status st = mm_stepper_finish(s->stepper, &last);
    return take_result(s, st, &last, &s->under_way);
}

/** One step; one whose images are all skipped changes nothing, and has neither
 * loss nor gradient. */
static mm_status train_step(sequence *s, int64_t step, mm_step_entry *entry)
{
    mm_batch batch;
    mm_step_result last = {0};
    mm_status st = mm_loader_batch(s->loader, step, &batch);
    if (s->plan->bad)
        MM_TRY(agree_on_batch(s, st, &batch, &entry->n_skipped));
    entry->n_images = batch.n_global;
    if (batch.n_global == 0)
        return finish_step(s);
    st = mm_stepper_step(s->stepper, &batch, st, entry->lr, &last);
    return take_result(s, st, &last, entry);
}

static mm_status train_epoch(sequence *s, int task, int64_t epoch,
                             int64_t n_steps, int64_t *n_seen)
{
    const mm_sequence_plan *plan = s->plan;
    int64_t in_epoch = mm_loader_n_steps(s->loader);
    mm_loader_start_epoch(s->loader, epoch);
    for (int64_t i = 0; i < in_epoch; i++) {
        double begin_s = mm_clock_s();
        double waited_s = mm_stepper_wait_s(s->stepper);
        double fed_s = mm_loader_wait_s(s->loader);
        mm_step_entry entry = {.task = task, .epoch = epoch};
        entry.step = epoch * in_epoch + i;
        entry.lr = mm_schedule_lr(plan->lr, entry.step, n_steps,
                                  warmup_steps(plan, n_steps));
        MM_TRY(train_step(s, i, &entry));
        entry.images_per_s = (double)entry.n_images / (mm_clock_s() - begin_s);
        entry.wait_s = mm_stepper_wait_s(s->stepper) - waited_s;
        entry.input_s = mm_loader_wait_s(s->loader) - fed_s;
        if (entry.n_images > 0)
            s->under_way = entry;
        else
            mm_run_dir_log_step(plan->dir, &entry);
        *n_seen += entry.n_images + entry.n_skipped;
        char note[32];
        snprintf(note, sizeof note, "loss %.4f", s->last_loss);
        mm_progress_update(plan->log, *n_seen, note);
    }
    return MM_OK;
}

/** Every rank must have arrived at the same weights, bit for bit. */
static mm_status check_same_weights(mm_comm *comm, const float *theta,
                                    int64_t n_params)
{
    int n_ranks = mm_comm_n_ranks(comm);
    uint32_t mine = mm_crc32(theta, n_params * (int64_t)sizeof *theta);
    uint32_t *all = malloc((size_t)n_ranks * sizeof *all);
    mm_status st = mm_comm_agree(
        comm, all ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for checksums"));
    if (st == MM_OK)
        st = mm_comm_allgather(comm, &mine, sizeof mine, all);
    for (int i = 1; st == MM_OK && i < n_ranks; i++)
        if (all[i] != all[0])
            st = mm_fail(MM_E_VALUE,
                         "ranks 0 and %d hold different weights (checksums "
                         "%08x, %08x); no checkpoint is written",
                         i, all[0], all[i]);
    free(all);
    return st;
}

/** The run's provenance, plus what is this task's own. */
static char *task_provenance(const mm_sequence_plan *plan, int task,
                             int64_t n_steps, double last_loss)
{
    json_t *root = json_loads(plan->provenance, 0, NULL);
    json_t *classes = json_array();
    const mm_task *t = &plan->tasks->tasks[task];
    for (int i = 0; i < t->n_classes; i++)
        json_array_append_new(classes, json_integer(t->classes[i]));
    json_object_set_new(root, "task", json_integer(task));
    json_object_set_new(root, "n_tasks", json_integer(plan->tasks->n_tasks));
    json_object_set_new(root, "classes", classes);
    json_object_set_new(root, "n_steps", json_integer(n_steps));
    json_object_set_new(root, "last_loss", json_real(last_loss));
    char *text = root ? json_dumps(root, 0) : NULL;
    json_decref(root);
    return text;
}

static mm_status save_task(sequence *s, int task, int64_t n_steps,
                           double last_loss)
{
    const mm_sequence_plan *plan = s->plan;
    mm_model *model = s->model;
    MM_TRY(
        mm_comm_agree(plan->comm, mm_stepper_read(s->stepper, model->theta)));
    MM_TRY(check_same_weights(plan->comm, model->theta, model->table.n_elems));
    char path[4096];
    mm_run_dir_task_path(plan->dir, task, path);
    char *provenance = task_provenance(plan, task, n_steps, last_loss);
    mm_status st = provenance
                       ? MM_OK
                       : mm_fail(MM_E_MEMORY, "no memory for the provenance");
    st = mm_comm_agree(plan->comm, st);
    if (st == MM_OK)
        st = mm_checkpoint_save(plan->comm, path, &model->table, model->theta,
                                model->config.json, provenance);
    free(provenance);
    return st;
}

static mm_status train_task(sequence *s, int task)
{
    const mm_sequence_plan *plan = s->plan;
    const mm_task *t = &plan->tasks->tasks[task];
    MM_TRY(mm_run_dir_restart_task(plan->dir, task));
    mm_status st = mm_loader_start_task(s->loader, t, task, plan->epochs);
    if (st == MM_OK)
        st = mm_stepper_start_task(
            s->stepper, plan->sequential ? s->model->theta : s->theta_0,
            plan->head, t);
    MM_TRY(mm_comm_agree(plan->comm, st));

    int64_t n_steps = plan->epochs * mm_loader_n_steps(s->loader);
    int64_t n_seen = 0;
    s->last_loss = 0;
    char what[64];
    snprintf(what, sizeof what, "task %d of %d", task + 1,
             plan->tasks->n_tasks);
    mm_progress_begin(plan->log, what, "images", plan->epochs * t->n_train);
    for (int64_t epoch = 0; epoch < plan->epochs; epoch++)
        MM_TRY(train_epoch(s, task, epoch, n_steps, &n_seen));
    MM_TRY(finish_step(s));
    mm_progress_end(plan->log);
    MM_TRY(mm_run_dir_flush(plan->dir));
    return save_task(s, task, n_steps, s->last_loss);
}

/* ---- all tasks --------------------------------------------------------- */

/** Take over the weights of a task that was finished before. */
static mm_status resume_from(sequence *s, int task)
{
    char path[4096];
    mm_run_dir_task_path(s->plan->dir, task, path);
    mm_status st = mm_weights_load(path, &s->model->table, s->model->theta);
    if (st != MM_OK)
        st = mm_fail(st, "%s; delete the file to train task %d again",
                     mm_fail_message(), task);
    return mm_comm_agree(s->plan->comm, st);
}

static mm_status train_all(sequence *s)
{
    const mm_sequence_plan *plan = s->plan;
    int n_tasks = plan->tasks->n_tasks, n_skipped = 0;
    bool following = false; /* a task was trained: what comes after it is old */
    for (int task = 0; task < n_tasks; task++) {
        bool there;
        MM_TRY(mm_run_dir_has_task(plan->dir, task, &there));
        if (there && !(following && plan->sequential)) {
            n_skipped++;
            continue;
        }
        if (!following && n_skipped)
            mm_log_line(plan->log, "%d of %d tasks are finished, continuing",
                        n_skipped, n_tasks);
        if (!following && plan->sequential && task > 0)
            MM_TRY(resume_from(s, task - 1));
        following = true;
        MM_TRY(train_task(s, task));
    }
    if (n_skipped == n_tasks)
        mm_log_line(plan->log, "all %d tasks are finished already", n_tasks);
    return MM_OK;
}

static int64_t most_classes(const mm_task_list *tasks)
{
    int64_t most = 0;
    for (int i = 0; i < tasks->n_tasks; i++)
        if (tasks->tasks[i].n_classes > most)
            most = tasks->tasks[i].n_classes;
    return most;
}

static mm_status prepare_local(sequence *s)
{
    const mm_sequence_plan *plan = s->plan;
    int64_t n_bytes =
        s->model->table.n_elems * (int64_t)sizeof *s->model->theta;
    if (!plan->sequential) {
        s->theta_0 = malloc((size_t)n_bytes);
        if (!s->theta_0)
            return mm_fail(MM_E_MEMORY, "no memory for the initial weights");
        memcpy(s->theta_0, s->model->theta, (size_t)n_bytes);
    }
    int n_threads = mm_comm_n_threads(plan->comm);
    mm_loader_plan loader = {
        .half = &plan->dataset->train,
        .device = plan->device,
        .image_size = s->model->config.image_size,
        .batch_size = plan->batch_size,
        .rank = mm_comm_rank(plan->comm),
        .n_ranks = mm_comm_n_ranks(plan->comm),
        .n_threads = n_threads,
        .n_workers = plan->n_workers < 0 ? mm_feed_default_workers(
                                               &plan->dataset->train, n_threads)
                                         : plan->n_workers,
        .seed = plan->seed,
        .shuffle = plan->shuffle,
        .augment = plan->augment,
        .skip_bad = plan->bad != NULL,
    };
    return mm_loader_create(&loader, &s->loader);
}

static mm_status prepare(sequence *s)
{
    const mm_sequence_plan *plan = s->plan;
    if (mm_comm_n_ranks(plan->comm) > plan->batch_size)
        return mm_fail(MM_E_ARG,
                       "%d ranks cannot share batches of %lld images; raise "
                       "--batch-size or use fewer ranks",
                       mm_comm_n_ranks(plan->comm),
                       (long long)plan->batch_size);
    MM_TRY(mm_comm_agree(plan->comm, prepare_local(s)));
    int64_t most_images = mm_loader_most_images(s->loader);
    if (plan->accumulate > most_images)
        return mm_fail(MM_E_ARG,
                       "--accumulate %lld: a rank has at most %lld images of a "
                       "batch, which make no more parts than that",
                       (long long)plan->accumulate, (long long)most_images);
    mm_step_plan step = {
        .comm = plan->comm,
        .device = plan->device,
        .config = &s->model->config,
        .most_images = most_images,
        .accumulate = plan->accumulate,
        .recompute = plan->recompute,
        .most_classes = most_classes(plan->tasks),
        .weight_decay = plan->weight_decay,
        .clip = plan->clip,
        .label_smoothing = plan->label_smoothing,
        .reduce_bf16 = plan->reduce_bf16,
    };
    mm_status st = mm_stepper_create(&step, &s->stepper);
    return st != MM_E_MEMORY
               ? st
               : mm_fail(st,
                         "%s; --accumulate N and --grad-checkpoint need less",
                         mm_fail_message());
}

mm_status mm_sequence_run(const mm_sequence_plan *plan, mm_model *model)
{
    MM_TRY(MM_CHECK_SAME(
        plan->comm, MM_SAME_INT(plan->tasks->n_tasks),
        MM_SAME_INT(plan->sequential), MM_SAME_INT(plan->epochs),
        MM_SAME_INT(plan->batch_size), MM_SAME_INT(plan->accumulate),
        MM_SAME_REAL(plan->lr), MM_SAME_REAL(plan->weight_decay),
        MM_SAME_REAL(plan->label_smoothing), MM_SAME_REAL(plan->clip),
        MM_SAME_INT(plan->warmup_length), MM_SAME_REAL(plan->warmup_ratio),
        MM_SAME_INT(plan->reduce_bf16), MM_SAME_INT(plan->seed),
        MM_SAME_INT(plan->shuffle), MM_SAME_INT(plan->augment),
        MM_SAME_INT(plan->bad != NULL),
        MM_SAME_BYTES(model->theta, 4 * model->table.n_elems)));
    sequence s = {.plan = plan, .model = model};
    mm_status st = prepare(&s);
    if (st == MM_OK)
        st = train_all(&s);
    mm_stepper_destroy(&s.stepper);
    mm_loader_destroy(&s.loader);
    free(s.theta_0);
    return st;
}
