/* The image tower over many samples, in batches that are read, computed and
 * handed over at the same time. */

#include "src/eval/encode.h"

#include "comm/check_same.h"
#include "comm/partition.h"
#include "src/base/arena.h"
#include "src/input/feed.h"
#include "src/input/upload.h"
#include "src/model/low_precision.h"
#include "src/model/vit.h"

#include <stdlib.h>
#include <string.h>

/* Results that are being copied to the host: the device works on one batch
 * while the host takes those of the one before. */
typedef struct slot {
    int64_t n; /* images; 0: none are being copied */
    int64_t *samples;
    float *features, *logits;
    mm_event *done;
} slot;

enum { N_SLOTS = 2 };

typedef struct encoder {
    const mm_encode_plan *plan;
    int64_t batch, n_classes;
    mm_stream *stream;
    mm_vit *vit;
    mm_feed *feed;
    mm_upload *upload;

    void *device_memory;
    float *theta, *head, *logits, *inv_norm;
    mm_act *theta_low; /* of theta, or NULL */

    void *host_memory;
    slot slots[N_SLOTS];
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
    e->theta_low =
        mm_low_precision_take(arena, e->plan->device, model->table.n_elems);
    e->head = mm_arena_floats(arena, e->n_classes * model->config.embed_dim);
    e->logits = mm_arena_floats(arena, e->batch * e->n_classes);
    e->inv_norm = mm_arena_floats(arena, e->batch);
}

static void lay_out_host(encoder *e, mm_arena *arena)
{
    int64_t embed_dim = e->plan->model->config.embed_dim;
    for (int i = 0; i < N_SLOTS; i++) {
        slot *s = &e->slots[i];
        s->samples =
            mm_arena_take(arena, e->batch * (int64_t)sizeof *s->samples);
        s->features = mm_arena_floats(arena, e->batch * embed_dim);
        s->logits = mm_arena_floats(arena, e->batch * e->n_classes);
    }
}

static mm_status create_feed(encoder *e)
{
    const mm_encode_plan *p = e->plan;
    int n_threads = mm_comm_n_threads(p->comm);
    mm_feed_plan feed = {
        .half = p->half,
        .device = p->device,
        .image_size = p->model->config.image_size,
        .most_images = e->batch,
        .n_workers = p->n_workers < 0
                         ? mm_feed_default_workers(p->half, n_threads)
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
    mm_stream_set_poll(e->stream, mm_comm_poll, p->comm);
    MM_TRY(mm_vit_create(p->device, e->stream, &model->config, MM_VIT_INFERENCE,
                         e->batch, &e->vit));
    mm_arena arena = {0};
    lay_out_device(e, &arena);
    MM_TRY(mm_device_alloc(p->device, arena.used, &e->device_memory));
    arena = (mm_arena){.base = e->device_memory};
    lay_out_device(e, &arena);

    arena = (mm_arena){0};
    lay_out_host(e, &arena);
    MM_TRY(mm_host_alloc(p->device, arena.used, &e->host_memory));
    arena = (mm_arena){.base = e->host_memory};
    lay_out_host(e, &arena);
    for (int i = 0; i < N_SLOTS; i++)
        MM_TRY(mm_event_create(p->device, &e->slots[i].done));
    MM_TRY(mm_upload_create(p->device, e->batch * image_bytes(e), &e->upload));
    MM_TRY(create_feed(e));

    MM_TRY(mm_copy_to_device(e->stream, e->theta, model->theta,
                             model->table.n_elems * (int64_t)sizeof *e->theta));
    MM_TRY(mm_low_precision_fill(mm_device_ops(p->device), e->stream,
                                 e->theta_low, e->theta, model->table.n_elems));
    if (p->head)
        MM_TRY(mm_copy_to_device(e->stream, e->head, p->head->weight,
                                 p->head->n_classes * p->head->embed_dim *
                                     (int64_t)sizeof *e->head));
    return mm_stream_sync(e->stream);
}

static void release(encoder *e)
{
    if (e->stream)
        (void)mm_stream_sync(e->stream);
    mm_upload_destroy(&e->upload);
    mm_feed_destroy(&e->feed);
    for (int i = 0; i < N_SLOTS; i++)
        mm_event_destroy(&e->slots[i].done);
    mm_host_free(e->plan->device, &e->host_memory);
    mm_device_free(e->plan->device, &e->device_memory);
    mm_vit_destroy(&e->vit);
    mm_stream_destroy(&e->stream);
}

/** Enqueue a batch whose results will be in `to`; its images are no longer
 * needed then. */
static mm_status encode_batch(encoder *e, const mm_feed_batch *fed, slot *to)
{
    const mm_encode_plan *p = e->plan;
    const mm_ops *ops = mm_device_ops(p->device);
    int64_t embed_dim = p->model->config.embed_dim, n = fed->n_images;
    float *features;
    to->n = n;
    if (n == 0)
        return MM_OK;
    memcpy(to->samples, fed->samples, (size_t)n * sizeof *to->samples);
    mm_upload_part images = {.host = fed->images,
                             .n_bytes = n * image_bytes(e)};
    MM_TRY(mm_upload_start(e->upload, e->stream, &images, 1));
    MM_TRY(mm_vit_forward(e->vit, e->theta,
                          mm_low_precision_or_theta(e->theta_low, e->theta),
                          images.device, n, &features));
    MM_TRY(mm_upload_used(e->upload, e->stream));
    MM_TRY(mm_copy_to_host(e->stream, to->features, features,
                           n * embed_dim * (int64_t)sizeof *features));
    if (p->head) {
        MM_TRY(ops->normalized_logits(e->stream, e->logits, e->inv_norm,
                                      features, e->head, n, embed_dim,
                                      e->n_classes));
        MM_TRY(mm_copy_to_host(e->stream, to->logits, e->logits,
                               n * e->n_classes * (int64_t)sizeof *e->logits));
    }
    MM_TRY(mm_event_record(to->done, e->stream));
    return mm_upload_wait(e->upload);
}

/** Wait for the results of a slot, if any, and hand them over. */
static mm_status take_results(encoder *e, slot *from)
{
    const mm_encode_plan *p = e->plan;
    if (from->n == 0)
        return MM_OK;
    MM_TRY(mm_event_sync(from->done));
    mm_encoded encoded = {from->samples, from->n, from->features,
                          p->head ? from->logits : NULL};
    from->n = 0;
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

/** Enqueue a batch, and hand over the one before, while the device works. */
static mm_status encode_and_take(encoder *e, const mm_feed_batch *fed,
                                 slot *now, slot *before)
{
    mm_comm_begin_compute(e->plan->comm);
    mm_status st = encode_batch(e, fed, now);
    if (st == MM_OK)
        st = take_results(e, before);
    mm_comm_end_compute(e->plan->comm);
    return st;
}

static mm_status take_last(encoder *e, slot *last)
{
    mm_comm_begin_compute(e->plan->comm);
    mm_status st = take_results(e, last);
    if (st == MM_OK)
        st = mm_stream_sync(e->stream);
    mm_comm_end_compute(e->plan->comm);
    return st;
}

static mm_status encode_share(encoder *e)
{
    const mm_encode_plan *p = e->plan;
    int n_ranks = mm_comm_n_ranks(p->comm);
    mm_range mine = mm_partition(p->n_samples, mm_comm_rank(p->comm), n_ranks);
    int64_t asked = mine.lo, n_done = 0;
    slot *now = &e->slots[0], *before = &e->slots[1];
    mm_progress_begin(p->log, "encoding", "images", p->n_samples);
    while (n_done < mine.hi - mine.lo) {
        mm_feed_batch fed;
        ask_ahead(e, mine, &asked);
        MM_TRY(mm_feed_next(e->feed, &fed));
        ask_ahead(e, mine, &asked);
        if (fed.n_bad)
            MM_TRY(mm_bad_images_add(p->bad, fed.bad, fed.n_bad));
        MM_TRY(encode_and_take(e, &fed, now, before));
        slot *taken = before;
        before = now;
        now = taken;
        n_done += fed.n_images + fed.n_bad;
        /* The other ranks have shares as large, and go as fast. */
        mm_progress_update(p->log, n_done * n_ranks, NULL);
    }
    MM_TRY(take_last(e, before));
    mm_progress_update(p->log, p->n_samples, NULL);
    return MM_OK;
}

mm_status mm_encode(const mm_encode_plan *plan)
{
    MM_TRY(MM_CHECK_SAME(plan->comm, MM_SAME_INT(plan->n_samples),
                         MM_SAME_BYTES(plan->samples, plan->n_samples * 8),
                         MM_SAME_INT(plan->batch_size),
                         MM_SAME_INT(plan->head != NULL),
                         MM_SAME_INT(plan->bad != NULL)));
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
