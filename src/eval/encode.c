#include "src/eval/encode.h"

#include "comm/partition.h"
#include "src/base/arena.h"
#include "src/model/vit.h"
#include "src/tasks/transform.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct encoder {
    const mm_encode_plan *plan;
    int n_threads;
    int64_t batch, n_classes;
    mm_stream *stream;
    mm_vit *vit;
    mm_transform **transforms; /* one a thread */

    void *device_memory;
    float *theta, *head, *logits, *inv_norm;
    uint8_t *images;

    void *host_memory;
    uint8_t *host_images;
    float *host_features, *host_logits;
} encoder;

static int64_t image_bytes(const encoder *e)
{
    int64_t size = e->plan->model->config.image_size;
    return size * size * 3;
}

static void lay_out_device(encoder *e, mm_arena *arena)
{
    const mm_model *model = e->plan->model;
    e->theta = mm_arena_floats(arena, model->table.n_elems);
    e->head = mm_arena_floats(arena, e->n_classes * model->config.embed_dim);
    e->logits = mm_arena_floats(arena, e->batch * e->n_classes);
    e->inv_norm = mm_arena_floats(arena, e->batch);
    e->images = mm_arena_take(arena, e->batch * image_bytes(e));
}

static void lay_out_host(encoder *e, mm_arena *arena)
{
    int64_t embed_dim = e->plan->model->config.embed_dim;
    e->host_images = mm_arena_take(arena, e->batch * image_bytes(e));
    e->host_features = mm_arena_floats(arena, e->batch * embed_dim);
    e->host_logits = mm_arena_floats(arena, e->batch * e->n_classes);
}

static mm_status prepare(encoder *e)
{
    const mm_encode_plan *p = e->plan;
    const mm_model *model = p->model;
    MM_TRY(mm_stream_create(p->device, &e->stream));
    MM_TRY(mm_vit_create(p->device, e->stream, &model->config, MM_VIT_INFERENCE,
                         e->batch, &e->vit));
    mm_arena arena = {0};
    lay_out_device(e, &arena);
    MM_TRY(mm_device_alloc(p->device, arena.used, &e->device_memory));
    arena = (mm_arena){.base = e->device_memory};
    lay_out_device(e, &arena);

    arena = (mm_arena){0};
    lay_out_host(e, &arena);
    e->host_memory = malloc((size_t)arena.used);
    e->transforms = calloc((size_t)e->n_threads, sizeof(mm_transform *));
    if (!e->host_memory || !e->transforms)
        return mm_fail(MM_E_MEMORY, "no memory for batches of %lld images",
                       (long long)e->batch);
    arena = (mm_arena){.base = e->host_memory};
    lay_out_host(e, &arena);
    for (int i = 0; i < e->n_threads; i++)
        MM_TRY(
            mm_transform_create(model->config.image_size, &e->transforms[i]));

    MM_TRY(mm_copy_to_device(e->stream, e->theta, model->theta,
                             model->table.n_elems * (int64_t)sizeof *e->theta));
    if (p->head)
        MM_TRY(mm_copy_to_device(e->stream, e->head, p->head->weight,
                                 p->head->n_classes * p->head->embed_dim *
                                     (int64_t)sizeof *e->head));
    return mm_stream_sync(e->stream);
}

static void release(encoder *e)
{
    for (int i = 0; e->transforms && i < e->n_threads; i++)
        mm_transform_destroy(&e->transforms[i]);
    free(e->transforms);
    free(e->host_memory);
    mm_device_release(e->plan->device, &e->device_memory);
    mm_vit_destroy(&e->vit);
    mm_stream_destroy(&e->stream);
}

static mm_status prepare_images(encoder *e, const int64_t *samples, int64_t n)
{
    const mm_split *split = e->plan->split;
    mm_status worst = MM_OK;
    char message[512] = "";
#pragma omp parallel for num_threads(e->n_threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        mm_image image = mm_split_image(split, samples[i]);
        mm_status st =
            mm_transform_evaluation(e->transforms[omp_get_thread_num()], &image,
                                    e->host_images + i * image_bytes(e));
        if (st != MM_OK) {
#pragma omp critical
            {
                worst = st;
                snprintf(message, sizeof message, "image %lld: %s",
                         (long long)samples[i], mm_fail_message());
            }
        }
    }
    return worst == MM_OK ? MM_OK : mm_fail(worst, "%s", message);
}

static mm_status encode_batch(encoder *e, const int64_t *samples, int64_t n)
{
    const mm_encode_plan *p = e->plan;
    const mm_ops *ops = mm_device_ops(p->device);
    int64_t embed_dim = p->model->config.embed_dim;
    float *features;
    MM_TRY(prepare_images(e, samples, n));
    MM_TRY(mm_copy_to_device(e->stream, e->images, e->host_images,
                             n * image_bytes(e)));
    MM_TRY(mm_vit_forward(e->vit, e->theta, e->images, n, &features));
    MM_TRY(mm_copy_to_host(e->stream, e->host_features, features,
                           n * embed_dim * (int64_t)sizeof *features));
    if (p->head) {
        MM_TRY(ops->normalized_logits(e->stream, e->logits, e->inv_norm,
                                      features, e->head, n, embed_dim,
                                      e->n_classes));
        MM_TRY(mm_copy_to_host(e->stream, e->host_logits, e->logits,
                               n * e->n_classes * (int64_t)sizeof *e->logits));
    }
    MM_TRY(mm_stream_sync(e->stream));
    mm_encoded encoded = {samples, n, e->host_features,
                          p->head ? e->host_logits : NULL};
    return p->take(p->context, &encoded);
}

static mm_status encode_share(encoder *e)
{
    const mm_encode_plan *p = e->plan;
    int n_ranks = mm_comm_n_ranks(p->comm);
    mm_range mine = mm_partition(p->n_samples, mm_comm_rank(p->comm), n_ranks);
    mm_progress_begin(p->log, "encoding", "images", p->n_samples);
    for (int64_t at = mine.lo; at < mine.hi; at += e->batch) {
        int64_t n = mine.hi - at < e->batch ? mine.hi - at : e->batch;
        MM_TRY(encode_batch(e, p->samples + at, n));
        /* The other ranks have shares as large, and go as fast. */
        mm_progress_update(p->log, (at + n - mine.lo) * n_ranks, NULL);
    }
    mm_progress_update(p->log, p->n_samples, NULL);
    return MM_OK;
}

mm_status mm_encode(const mm_encode_plan *plan)
{
    encoder e = {
        .plan = plan,
        .n_threads = mm_comm_n_threads(plan->comm),
        .batch = plan->batch_size,
        .n_classes = plan->head ? plan->head->n_classes : 0,
    };
    mm_status st = mm_comm_agree(plan->comm, prepare(&e));
    if (st == MM_OK) {
        st = mm_comm_agree(plan->comm, encode_share(&e));
        if (st == MM_OK)
            mm_progress_end(plan->log);
    }
    release(&e);
    return st;
}
