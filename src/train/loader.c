#include "src/train/loader.h"

#include "comm/partition.h"
#include "src/base/rng.h"
#include "src/tasks/transform.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mm_loader {
    mm_loader_plan plan;
    int64_t most_images;
    uint8_t *images;
    int32_t *labels;
    mm_transform **transforms; /* one a thread */
    const mm_task *task;
    int64_t task_number, epoch;
    int64_t *order; /* [task->n_train] sample indices in this epoch's order */
    int64_t order_capacity;
};

mm_status mm_loader_create(const mm_loader_plan *plan, mm_loader **loader)
{
    mm_loader *l = calloc(1, sizeof *l);
    mm_status st = mm_fail(MM_E_MEMORY, "no memory for batches of %lld images",
                           (long long)plan->batch_size);
    if (!l)
        return st;
    l->plan = *plan;
    mm_range share = mm_partition(plan->batch_size, 0, plan->n_ranks);
    l->most_images = share.hi - share.lo; /* rank 0 has the largest share */
    int64_t image_bytes = plan->image_size * plan->image_size * 3;
    l->images = malloc((size_t)(l->most_images * image_bytes));
    l->labels = malloc((size_t)l->most_images * sizeof *l->labels);
    l->transforms = calloc((size_t)plan->n_threads, sizeof(mm_transform *));
    if (!l->images || !l->labels || !l->transforms)
        goto fail;
    for (int i = 0; i < plan->n_threads; i++)
        MM_TRY_GOTO(st, fail,
                    mm_transform_create(plan->image_size, &l->transforms[i]));
    *loader = l;
    return MM_OK;
fail:
    mm_loader_destroy(&l);
    return st;
}

void mm_loader_destroy(mm_loader **loader)
{
    mm_loader *l = *loader;
    if (!l)
        return;
    for (int i = 0; l->transforms && i < l->plan.n_threads; i++)
        mm_transform_destroy(&l->transforms[i]);
    free(l->transforms);
    free(l->images);
    free(l->labels);
    free(l->order);
    free(l);
    *loader = NULL;
}

int64_t mm_loader_most_images(const mm_loader *loader)
{
    return loader->most_images;
}

mm_status mm_loader_begin_task(mm_loader *l, const mm_task *task,
                               int64_t task_number)
{
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
    return MM_OK;
}

int64_t mm_loader_n_steps(const mm_loader *l)
{
    return (l->task->n_train + l->plan.batch_size - 1) / l->plan.batch_size;
}

void mm_loader_begin_epoch(mm_loader *l, int64_t epoch)
{
    int64_t n = l->task->n_train;
    l->epoch = epoch;
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

static mm_status prepare(mm_loader *l, int thread, int64_t sample, uint8_t *out)
{
    mm_image image = mm_split_image(l->plan.split, sample);
    mm_transform *transform = l->transforms[thread];
    if (l->plan.augment)
        return mm_transform_training(transform, &image, l->plan.seed, l->epoch,
                                     sample, out);
    return mm_transform_evaluation(transform, &image, out);
}

mm_status mm_loader_batch(mm_loader *l, int64_t step, mm_batch *batch)
{
    const mm_loader_plan *plan = &l->plan;
    int64_t begin = step * plan->batch_size;
    int64_t n_global = l->task->n_train - begin;
    if (n_global > plan->batch_size)
        n_global = plan->batch_size;
    mm_range mine = mm_partition(n_global, plan->rank, plan->n_ranks);
    int64_t n = mine.hi - mine.lo;
    *batch = (mm_batch){n, n_global, l->images, l->labels};

    int64_t image_bytes = plan->image_size * plan->image_size * 3;
    mm_status worst = MM_OK;
    char message[512] = "";
#pragma omp parallel for num_threads(plan->n_threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        int64_t sample = l->order[begin + mine.lo + i];
        int thread = omp_get_thread_num();
        l->labels[i] = l->task->local[plan->split->labels[sample]];
        mm_status st = prepare(l, thread, sample, l->images + i * image_bytes);
        if (st != MM_OK) {
#pragma omp critical
            {
                worst = st;
                snprintf(message, sizeof message, "training image %lld: %s",
                         (long long)sample, mm_fail_message());
            }
        }
    }
    return worst == MM_OK ? MM_OK : mm_fail(worst, "%s", message);
}
