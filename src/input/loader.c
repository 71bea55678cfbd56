/* The order of a task's samples in each epoch, and this rank's share of each
 * batch. */

#include "src/input/loader.h"

#include "comm/partition.h"
#include "src/base/rng.h"

#include <stdlib.h>
#include <string.h>

struct mm_loader {
    mm_loader_plan plan;
    int64_t most_images;
    mm_feed *feed;
    void *label_memory;
    int32_t *labels;
    const mm_task *task;
    int64_t task_number, n_epochs;
    int64_t epoch, step; /* of the next batch to give       */
    int64_t asked_epoch; /* of the next batch to ask for: ...*/
    int64_t asked_step;
    int64_t *order; /* [task->n_train] sample indices in its epoch's order */
    int64_t order_capacity;
};

mm_status mm_loader_create(const mm_loader_plan *plan, mm_loader **loader)
{
    mm_loader *l = calloc(1, sizeof *l);
    mm_status st;
    *loader = l;
    if (!l)
        return mm_fail(MM_E_MEMORY, "no memory for batches of %lld images",
                       (long long)plan->batch_size);
    l->plan = *plan;
    mm_range share = mm_partition(plan->batch_size, 0, plan->n_ranks);
    l->most_images = share.hi - share.lo; /* rank 0 has the largest share */
    MM_TRY_GOTO(st, fail,
                mm_host_alloc(plan->device,
                              l->most_images * (int64_t)sizeof *l->labels,
                              &l->label_memory));
    l->labels = l->label_memory;
    mm_feed_plan feed = {
        .half = plan->half,
        .device = plan->device,
        .image_size = plan->image_size,
        .most_images = l->most_images,
        .n_workers = plan->n_workers,
        .n_threads = plan->n_threads,
        .augment = plan->augment,
        .seed = plan->seed,
        .skip_bad = plan->skip_bad,
    };
    MM_TRY_GOTO(st, fail, mm_feed_create(&feed, &l->feed));
    return MM_OK;
fail:
    mm_loader_destroy(loader);
    return st;
}

void mm_loader_destroy(mm_loader **loader)
{
    mm_loader *l = *loader;
    if (!l)
        return;
    mm_feed_destroy(&l->feed);
    mm_host_free(l->plan.device, &l->label_memory);
    free(l->order);
    free(l);
    *loader = NULL;
}

int64_t mm_loader_most_images(const mm_loader *loader)
{
    return loader->most_images;
}

double mm_loader_wait_s(const mm_loader *loader)
{
    return mm_feed_wait_s(loader->feed);
}

mm_status mm_loader_start_task(mm_loader *l, const mm_task *task,
                               int64_t task_number, int64_t n_epochs)
{
    mm_feed_cancel(l->feed);
    if (task->n_train > l->order_capacity) {
        int64_t *grown =
            realloc(l->order, (size_t)task->n_train * sizeof *grown);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for an order of %lld images",
                           (long long)task->n_train);
        l->order = grown;
        l->order_capacity = task->n_train;
    }
    l->task = task;
    l->task_number = task_number;
    l->n_epochs = n_epochs;
    l->epoch = l->asked_epoch = -1;
    return MM_OK;
}

int64_t mm_loader_n_steps(const mm_loader *l)
{
    return (l->task->n_train + l->plan.batch_size - 1) / l->plan.batch_size;
}

/** Put the samples into an epoch's order. */
static void set_order(mm_loader *l, int64_t epoch)
{
    int64_t n = l->task->n_train;
    memcpy(l->order, l->task->train, (size_t)n * sizeof *l->order);
    if (!l->plan.shuffle)
        return;
    /* Fisher and Yates, each draw keyed on its place. */
    mm_rng_key key = mm_rng_key_of(l->plan.seed, MM_RNG_ORDER);
    uint64_t which = (uint64_t)l->task_number << 32 | (uint32_t)epoch;
    for (int64_t i = n - 1; i > 0; i--) {
        uint64_t bits = mm_rng_bits(key, (uint64_t)i, which);
        int64_t j =
            (int64_t)((unsigned __int128)bits * (uint64_t)(i + 1) >> 64);
        int64_t kept = l->order[i];
        l->order[i] = l->order[j];
        l->order[j] = kept;
    }
}

static int64_t global_images(const mm_loader *l, int64_t step)
{
    int64_t left = l->task->n_train - step * l->plan.batch_size;
    return left < l->plan.batch_size ? left : l->plan.batch_size;
}

/** Ask for as many batches as the feed has room for. */
static void ask_ahead(mm_loader *l)
{
    while (mm_feed_has_room(l->feed)) {
        if (l->asked_step == mm_loader_n_steps(l)) {
            if (l->asked_epoch + 1 >= l->n_epochs)
                return;
            set_order(l, ++l->asked_epoch);
            l->asked_step = 0;
        }
        mm_range mine = mm_partition(global_images(l, l->asked_step),
                                     l->plan.rank, l->plan.n_ranks);
        mm_feed_push(l->feed,
                     l->order + l->asked_step * l->plan.batch_size + mine.lo,
                     mine.hi - mine.lo, l->asked_epoch);
        l->asked_step++;
    }
}

void mm_loader_start_epoch(mm_loader *l, int64_t epoch)
{
    bool follows = l->epoch >= 0 && epoch == l->epoch + 1 &&
                   l->step == mm_loader_n_steps(l) && epoch < l->n_epochs;
    l->epoch = epoch;
    l->step = 0;
    if (!follows) {
        mm_feed_cancel(l->feed);
        l->asked_epoch = epoch;
        l->asked_step = 0;
        set_order(l, epoch);
    }
    ask_ahead(l);
}

mm_status mm_loader_batch(mm_loader *l, int64_t step, mm_batch *batch)
{
    MM_ASSERT(step == l->step && step < mm_loader_n_steps(l));
    mm_feed_batch fed;
    *batch =
        (mm_batch){.n_global = global_images(l, step), .labels = l->labels};
    l->step++;
    mm_status st = mm_feed_next(l->feed, &fed);
    ask_ahead(l);
    MM_TRY(st);
    for (int64_t i = 0; i < fed.n_images; i++)
        l->labels[i] = l->task->local[l->plan.half->labels[fed.samples[i]]];
    batch->n_images = fed.n_images;
    batch->images = fed.images;
    batch->n_bad = fed.n_bad;
    batch->bad = fed.bad;
    return MM_OK;
}
