/* The text tower over many texts, sorted by length so that little is computed
 * for padding. */

#include "src/eval/encode_texts.h"

#include "comm/check_same.h"
#include "src/base/arena.h"
#include "src/input/upload.h"
#include "src/model/low_precision.h"
#include "src/model/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- texts ------------------------------------------------------------- */

/** `array` with room for `wanted` elements; NULL without memory. */
static void *with_room(void *array, int64_t *capacity, int64_t wanted,
                       size_t elem_bytes)
{
    if (wanted <= *capacity)
        return array;
    int64_t more = 2 * *capacity > wanted ? 2 * *capacity : wanted;
    void *grown = realloc(array, (size_t)more * elem_bytes);
    if (grown)
        *capacity = more;
    return grown;
}

mm_status mm_texts_add(mm_texts *texts, const int32_t *ids, int64_t n_ids)
{
    int64_t end = 0, at = texts->n ? texts->begin[texts->n] : 0;
    for (int64_t i = 1; i < n_ids; i++)
        end = ids[i] > ids[end] ? i : end;
    int64_t *begin = with_room(texts->begin, &texts->capacity, texts->n + 2,
                               sizeof *texts->begin);
    texts->begin = begin ? begin : texts->begin;
    int32_t *all = with_room(texts->ids, &texts->ids_capacity, at + end + 1,
                             sizeof *texts->ids);
    texts->ids = all ? all : texts->ids;
    if (!begin || !all)
        return mm_fail(MM_E_MEMORY, "no memory for texts");
    memcpy(all + at, ids, (size_t)(end + 1) * sizeof *ids);
    begin[texts->n++] = at;
    begin[texts->n] = at + end + 1;
    return MM_OK;
}

void mm_texts_clear(mm_texts *texts)
{
    free(texts->begin);
    free(texts->ids);
    *texts = (mm_texts){0};
}

static int64_t length_of(const mm_texts *texts, int64_t i)
{
    return texts->begin[i + 1] - texts->begin[i];
}

/* ---- batches ----------------------------------------------------------- */

/* A batch that was enqueued: the device works on one while the host prepares
 * the next and takes the results of the one before. */
typedef struct slot {
    int64_t at, n; /* texts order[at] .. order[at + n); 0: none */
    int32_t *tokens;
    int64_t *ends;
    float *features; /* [max_tokens, embed_dim] */
    mm_event *done;
} slot;

enum { N_SLOTS = 2 };

typedef struct encoder {
    const mm_encode_texts_plan *plan;
    int64_t *order; /* [texts->n] long ones first */
    int64_t max_tokens;
    mm_stream *stream;
    mm_text *text;

    void *device_memory;
    float *theta;      /* the model's own, or a copy */
    mm_act *theta_low; /* of theta, or NULL */
    mm_upload *upload;
    void *host_memory;
    slot slots[N_SLOTS];
    mm_encode_texts_work work;
} encoder;

/** Counting sort by length: a stable order, the same everywhere. */
static void sort_by_length(const mm_texts *texts, int64_t most, int64_t *counts,
                           int64_t *order)
{
    for (int64_t i = 0; i < texts->n; i++)
        counts[most - length_of(texts, i) + 1]++;
    for (int64_t k = 0; k < most; k++)
        counts[k + 1] += counts[k];
    for (int64_t i = 0; i < texts->n; i++)
        order[counts[most - length_of(texts, i)]++] = i;
}

static mm_status check_texts(const mm_texts *texts, const mm_model_config *c)
{
    for (int64_t i = 0; i < texts->n; i++) {
        if (length_of(texts, i) > c->text.n_tokens)
            return mm_fail(
                MM_E_VALUE,
                "text %lld has %lld tokens, but the model takes at most %lld",
                (long long)i, (long long)length_of(texts, i),
                (long long)c->text.n_tokens);
        for (int64_t at = texts->begin[i]; at < texts->begin[i + 1]; at++)
            if (texts->ids[at] < 0 || texts->ids[at] >= c->vocab_size)
                return mm_fail(MM_E_VALUE,
                               "text %lld has token %d, the model's vocabulary "
                               "has %lld",
                               (long long)i, (int)texts->ids[at],
                               (long long)c->vocab_size);
    }
    return MM_OK;
}

static mm_status make_order(encoder *e)
{
    const mm_texts *texts = e->plan->texts;
    int64_t most = e->plan->model->config.text.n_tokens;
    MM_TRY(check_texts(texts, &e->plan->model->config));
    int64_t *counts = calloc((size_t)most + 2, sizeof *counts);
    e->order = calloc((size_t)texts->n + 1, sizeof *e->order);
    if (!counts || !e->order) {
        free(counts);
        return mm_fail(MM_E_MEMORY, "no memory for texts");
    }
    sort_by_length(texts, most, counts, e->order);
    free(counts);
    int64_t longest = texts->n > 0 ? length_of(texts, e->order[0]) : 1;
    e->max_tokens =
        e->plan->batch_tokens > longest ? e->plan->batch_tokens : longest;
    return MM_OK;
}

/** How many elements a device's copy of the weights starts behind an aligned
 * place: such that what follows logit_scale, one number before all blocks, is
 * aligned. Nothing in the blocks would be, without it. */
static int64_t lead_of(const mm_model *model)
{
    enum { ALIGN = 16 };
    const float *behind =
        mm_params_text(&model->config, model->theta).logit_scale + 1;
    return (ALIGN - (behind - model->theta) % ALIGN) % ALIGN;
}

static void lay_out_device(encoder *e, mm_arena *arena)
{
    const mm_model *model = e->plan->model;
    e->theta = model->theta;
    if (!mm_device_has_own_memory(e->plan->device))
        return;
    const int64_t lead = lead_of(model), n = lead + model->table.n_elems;
    float *theta = mm_arena_floats(arena, n);
    mm_act *theta_low = mm_low_precision_take(arena, e->plan->device, n);
    e->theta = theta ? theta + lead : NULL;
    const int64_t act_bytes = mm_device_act_bytes(e->plan->device);
    e->theta_low =
        theta_low ? (mm_act *)((char *)theta_low + lead * act_bytes) : NULL;
}

static void lay_out_host(encoder *e, mm_arena *arena)
{
    int64_t n = e->max_tokens;
    for (int i = 0; i < N_SLOTS; i++) {
        slot *s = &e->slots[i];
        s->tokens = mm_arena_take(arena, n * (int64_t)sizeof *s->tokens);
        s->ends = mm_arena_take(arena, n * (int64_t)sizeof *s->ends);
        s->features =
            mm_arena_floats(arena, n * e->plan->model->config.embed_dim);
    }
}

static mm_status prepare(encoder *e)
{
    const mm_encode_texts_plan *p = e->plan;
    const mm_model *model = p->model;
    MM_TRY(make_order(e));
    MM_TRY(mm_stream_create(p->device, &e->stream));
    mm_stream_set_poll(e->stream, mm_comm_poll, p->comm);
    MM_TRY(mm_text_create(p->device, e->stream, &model->config, e->max_tokens,
                          &e->text));
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
    MM_TRY(mm_upload_create(
        p->device, e->max_tokens * (int64_t)(sizeof(int32_t) + sizeof(int64_t)),
        &e->upload));
    if (e->theta != model->theta)
        MM_TRY(mm_copy_to_device(e->stream, e->theta, model->theta,
                                 model->table.n_elems *
                                     (int64_t)sizeof *e->theta));
    MM_TRY(mm_low_precision_fill(mm_device_ops(p->device), e->stream,
                                 e->theta_low, e->theta, model->table.n_elems));
    return mm_stream_sync(e->stream);
}

static void release(encoder *e)
{
    if (e->stream)
        (void)mm_stream_sync(e->stream);
    mm_upload_destroy(&e->upload);
    for (int i = 0; i < N_SLOTS; i++)
        mm_event_destroy(&e->slots[i].done);
    mm_host_free(e->plan->device, &e->host_memory);
    mm_text_destroy(&e->text);
    mm_device_free(e->plan->device, &e->device_memory);
    mm_stream_destroy(&e->stream);
    free(e->order);
}

/**
 * How many texts from order[at] on, the longest, go together. Each shorter one
 * is filled up to that one's length; so a batch that is large enough for the
 * products to be fast ends where the length does, and a smaller one where more
 * than an eighth would be filling.
 */
static int64_t batch_size(const encoder *e, int64_t at)
{
    enum { FAST_TOKENS = 1024, LEAST_TOKENS = 256, MOST_FILLING = 8 };
    const mm_texts *texts = e->plan->texts;
    int64_t longest = length_of(texts, e->order[at]), n = 1, filling = 0;
    for (; at + n < texts->n && (n + 1) * longest <= e->max_tokens; n++) {
        int64_t shorter = longest - length_of(texts, e->order[at + n]);
        filling += shorter;
        if ((shorter > 0 && n * longest >= FAST_TOKENS) ||
            (n * longest >= LEAST_TOKENS &&
             MOST_FILLING * filling > (n + 1) * longest))
            break;
    }
    return n;
}

/** The texts' ids side by side, and where each ends. */
static void fill(encoder *e, slot *s, int64_t n_tokens)
{
    const mm_texts *texts = e->plan->texts;
    memset(s->tokens, 0, (size_t)(s->n * n_tokens) * sizeof *s->tokens);
    for (int64_t i = 0; i < s->n; i++) {
        int64_t text = e->order[s->at + i], length = length_of(texts, text);
        memcpy(s->tokens + i * n_tokens, texts->ids + texts->begin[text],
               (size_t)length * sizeof *texts->ids);
        s->ends[i] = i * n_tokens + length - 1;
        e->work.n_tokens += length;
    }
    e->work.n_computed += s->n * n_tokens;
    e->work.flop +=
        (double)s->n * mm_text_forward_flop(&e->plan->model->config, n_tokens);
}

/** Enqueue texts order[at] .. order[at + n), the first of which is the longest.
 */
static mm_status encode_batch(encoder *e, int64_t at, int64_t n, slot *to)
{
    const mm_encode_texts_plan *p = e->plan;
    int64_t n_tokens = length_of(p->texts, e->order[at]);
    float *features;
    to->at = at;
    to->n = n;
    fill(e, to, n_tokens);
    mm_upload_part parts[] = {
        {.host = to->tokens,
         .n_bytes = n * n_tokens * (int64_t)sizeof *to->tokens},
        {.host = to->ends, .n_bytes = n * (int64_t)sizeof *to->ends},
    };
    MM_TRY(mm_upload_start(e->upload, e->stream, parts, 2));
    MM_TRY(mm_text_forward(
        e->text, e->theta, mm_low_precision_or_theta(e->theta_low, e->theta),
        parts[0].device, parts[1].device, n, n_tokens, &features));
    MM_TRY(mm_upload_used(e->upload, e->stream));
    MM_TRY(mm_copy_to_host(e->stream, to->features, features,
                           n * p->model->config.embed_dim *
                               (int64_t)sizeof *features));
    return mm_event_record(to->done, e->stream);
}

/** Wait for the results of a slot, if any, and hand them over. */
static mm_status take_results(encoder *e, slot *from)
{
    const mm_encode_texts_plan *p = e->plan;
    if (from->n == 0)
        return MM_OK;
    MM_TRY(mm_event_sync(from->done));
    for (int64_t i = 0; i < from->n; i++)
        MM_TRY(p->take(p->context, e->order[from->at + i],
                       from->features + i * p->model->config.embed_dim));
    from->n = 0;
    return MM_OK;
}

/** Enqueue a batch, and hand over the one before, while the device works. */
static mm_status encode_and_take(encoder *e, int64_t at, int64_t n, slot *now,
                                 slot *before)
{
    mm_comm_begin_compute(e->plan->comm);
    mm_status st = encode_batch(e, at, n, now);
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

static mm_status encode_share(encoder *e, int64_t n_all)
{
    const mm_encode_texts_plan *p = e->plan;
    const mm_texts *texts = p->texts;
    slot *now = &e->slots[0], *before = &e->slots[1];
    mm_progress_begin(p->log, "encoding", "texts", n_all);
    for (int64_t at = 0; at < texts->n;) {
        int64_t n = batch_size(e, at);
        MM_TRY(encode_and_take(e, at, n, now, before));
        slot *taken = before;
        before = now;
        now = taken;
        at += n;
        /* The other ranks have shares as large, and go as fast. */
        mm_progress_update(
            p->log, (int64_t)((double)at / (double)texts->n * (double)n_all),
            NULL);
    }
    MM_TRY(take_last(e, before));
    mm_progress_update(p->log, n_all, NULL);
    return MM_OK;
}

mm_status mm_encode_texts(const mm_encode_texts_plan *plan,
                          mm_encode_texts_work *work)
{
    MM_TRY(MM_CHECK_CALL(plan->comm));
    encoder e = {.plan = plan};
    int64_t n_all = plan->texts->n;
    mm_status st = mm_comm_agree(plan->comm, prepare(&e));
    if (st == MM_OK)
        st = mm_comm_sum_int64(plan->comm, &n_all, 1);
    if (st == MM_OK)
        st = mm_comm_agree(plan->comm, encode_share(&e, n_all));
    if (st == MM_OK)
        mm_progress_end(plan->log);
    if (work)
        *work = e.work;
    release(&e);
    return st;
}
