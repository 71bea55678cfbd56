#include "src/eval/encode.h"

#include "comm/partition.h"
#include "src/base/arena.h"
#include "src/model/shadow.h"
#include "src/model/vit.h"
#include "src/tasks/feed.h"

#include <stdlib.h>

typedef struct encoder {
    const mm_encode_plan *plan;
    int64_t batch, n_classes;
    mm_stream *stream;
    mm_vit *vit;
    mm_feed *feed;

    void *device_memory;
    float *theta, *head, *logits, *inv_norm;
    mm_act *shadow; /* of theta, or NULL */
    uint8_t *images;

    void *host_memory;
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
    e->shadow = mm_shadow_take(arena, e->plan->device, model->table.n_elems);
    e->head = mm_arena_floats(arena, e->n_classes * model->config.embed_dim);
    e->logits = mm_arena_floats(arena, e->batch * e->n_classes);
    e->inv_norm = mm_arena_floats(arena, e->batch);
    e->images = mm_arena_take(arena, e->batch * image_bytes(e));
}

static void lay_out_host(encoder *e, mm_arena *arena)
{
    int64_t embed_dim = e->plan->model->config.embed_dim;
    e->host_features = mm_arena_floats(arena, e->batch * embed_dim);
    e->host_logits = mm_arena_floats(arena, e->batch * e->n_classes);
}

static mm_status create_feed(encoder *e)
{
    const mm_encode_plan *p = e->plan;
    int n_threads = mm_comm_n_threads(p->comm);
    mm_feed_plan feed = {
        .split = p->split,
        .device = p->device,
        .image_size = p->model->config.image_size,
        .most_images = e->batch,
        .n_workers = p->n_workers < 0
                         ? mm_feed_default_workers(p->split, n_threads)
                         : p->n_workers,
        .n_threads = n_threads,
        .skip_bad = p->bad != NULL,
    };
    return mm_feed_create(&feed, &e->feed);
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
    if (!e->host_memory)
        return mm_fail(MM_E_MEMORY, "no memory for batches of %lld images",
                       (long long)e->batch);
    arena = (mm_arena){.base = e->host_memory};
    lay_out_host(e, &arena);
    MM_TRY(create_feed(e));

    MM_TRY(mm_copy_to_device(e->stream, e->theta, model->theta,
                             model->table.n_elems * (int64_t)sizeof *e->theta));
    MM_TRY(mm_shadow_fill(mm_device_ops(p->device), e->stream, e->shadow,
                          e->theta, model->table.n_elems));
    if (p->head)
        MM_TRY(mm_copy_to_device(e->stream, e->head, p->head->weight,
                                 p->head->n_classes * p->head->embed_dim *
                                     (int64_t)sizeof *e->head));
    return mm_stream_sync(e->stream);
}

static void release(encoder *e)
{
    mm_feed_destroy(&e->feed);
    free(e->host_memory);
    mm_device_release(e->plan->device, &e->device_memory);
    mm_vit_destroy(&e->vit);
    mm_stream_destroy(&e->stream);
}

static mm_status encode_batch(encoder *e, const mm_fed *fed)
{
    const mm_encode_plan *p = e->plan;
    const mm_ops *ops = mm_device_ops(p->device);
    int64_t embed_dim = p->model->config.embed_dim, n = fed->n_images;
    float *features;
    if (n == 0)
        return MM_OK;
    MM_TRY(mm_copy_to_device(e->stream, e->images, fed->images,
                             n * image_bytes(e)));
    MM_TRY(mm_vit_forward(e->vit, e->theta,
                          mm_shadow_or_theta(e->shadow, e->theta), e->images, n,
                          &features));
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
    mm_encoded encoded = {fed->samples, n, e->host_features,
                          p->head ? e->host_logits : NULL};
    return p->take(p->context, &encoded);
}

/** Ask for batches of this rank's share, as far ahead as there is room. */
static void ask_ahead(encoder *e, mm_range mine, int64_t *asked)
{
    while (*asked < mine.hi && mm_feed_has_room(e->feed)) {
        int64_t n = mine.hi - *asked < e->batch ? mine.hi - *asked : e->batch;
        mm_feed_push(e->feed, e->plan->samples + *asked, n, 0);
        *asked += n;
    }
}

static mm_status encode_share(encoder *e)
{
    const mm_encode_plan *p = e->plan;
    int n_ranks = mm_comm_n_ranks(p->comm);
    mm_range mine = mm_partition(p->n_samples, mm_comm_rank(p->comm), n_ranks);
    int64_t asked = mine.lo, n_done = 0;
    mm_progress_begin(p->log, "encoding", "images", p->n_samples);
    while (n_done < mine.hi - mine.lo) {
        mm_fed fed;
        ask_ahead(e, mine, &asked);
        MM_TRY(mm_feed_next(e->feed, &fed));
        ask_ahead(e, mine, &asked);
        if (fed.n_bad)
            MM_TRY(mm_bad_images_add(p->bad, fed.bad, fed.n_bad));
        MM_TRY(encode_batch(e, &fed));
        n_done += fed.n_images + fed.n_bad;
        /* The other ranks have shares as large, and go as fast. */
        mm_progress_update(p->log, n_done * n_ranks, NULL);
    }
    mm_progress_update(p->log, p->n_samples, NULL);
    return MM_OK;
}

mm_status mm_encode(const mm_encode_plan *plan)
{
    encoder e = {
        .plan = plan,
        .batch = plan->batch_size,
        .n_classes = plan->head ? plan->head->n_classes : 0,
    };
    mm_status st = mm_comm_agree(plan->comm, prepare(&e));
    if (st == MM_OK)
        st = mm_comm_agree(plan->comm, encode_share(&e));
    if (st == MM_OK)
        mm_progress_end(plan->log);
    if (st == MM_OK && plan->bad)
        st = mm_bad_images_share(plan->bad, plan->comm, plan->log);
    release(&e);
    return st;
}
