/* The buffers, streams and events through which a merge's blocks pass: from
 * host memory to the device and back. */

#include "src/merge/pipeline.h"

#include "src/base/arena.h"

#include <stdlib.h>

/* Elements that go through at once: on the host few enough for the caches to
 * hold a block of every array, enough for a read to be worth its call; to a
 * device enough for a copy to be worth its. */
enum { HOST_BLOCK = 1 << 15, DEVICE_BLOCK = 1 << 18 };

enum { MOST_SLOTS = 2 };

/* A block of an input, on the host and on the device. */
typedef struct in_slot {
    float *host, *device;
    mm_event *sent; /* the host may fill it again       */
    mm_event *used; /* the device may be sent more      */
} in_slot;

typedef struct out_slot {
    float *merged;
    uint16_t *winner;
    mm_event *received;
    int64_t lo, n_elems;
} out_slot;

struct mm_pipeline {
    mm_device *device;
    const mm_merge_method *method;
    mm_stream *copies, *ops;
    bool copied; /* host and device memory differ */
    int n_slots;
    int64_t block_elems;
    void *device_memory, *host_memory;

    in_slot in[MM_PIPELINE_INPUTS][MOST_SLOTS];
    int at[MM_PIPELINE_INPUTS]; /* which is filled and sent next */
    float *tau, *merged;
    uint16_t *winner;

    out_slot out[MOST_SLOTS];
    int64_t n_finished, n_taken;
};

/* ---- memory ------------------------------------------------------------- */

static uint16_t *take_winners(const mm_pipeline *p, mm_arena *arena)
{
    return mm_arena_take(arena, p->block_elems * (int64_t)sizeof(uint16_t));
}

static void lay_out_device(mm_pipeline *p, mm_arena *arena)
{
    for (int input = 0; input < MM_PIPELINE_INPUTS; input++)
        for (int i = 0; i < p->n_slots; i++)
            p->in[input][i].device = mm_arena_floats(arena, p->block_elems);
    p->tau = mm_arena_floats(arena, p->block_elems);
    p->merged = mm_arena_floats(arena, p->block_elems);
    p->winner = take_winners(p, arena);
}

static void lay_out_host(mm_pipeline *p, mm_arena *arena)
{
    for (int input = 0; input < MM_PIPELINE_INPUTS; input++)
        for (int i = 0; i < p->n_slots; i++)
            p->in[input][i].host = mm_arena_floats(arena, p->block_elems);
    for (int i = 0; i < p->n_slots; i++) {
        p->out[i].merged = mm_arena_floats(arena, p->block_elems);
        p->out[i].winner = take_winners(p, arena);
    }
}

static void share_memory(mm_pipeline *p)
{
    for (int input = 0; input < MM_PIPELINE_INPUTS; input++)
        p->in[input][0].host = p->in[input][0].device;
    p->out[0].merged = p->merged;
    p->out[0].winner = p->winner;
}

static mm_status take_memory(mm_pipeline *p)
{
    mm_arena arena = {0};
    lay_out_device(p, &arena);
    MM_TRY(mm_device_alloc(p->device, arena.used, &p->device_memory));
    arena = (mm_arena){.base = p->device_memory};
    lay_out_device(p, &arena);
    if (!p->copied) {
        share_memory(p);
        return MM_OK;
    }
    arena = (mm_arena){0};
    lay_out_host(p, &arena);
    MM_TRY(mm_host_alloc(p->device, arena.used, &p->host_memory));
    arena = (mm_arena){.base = p->host_memory};
    lay_out_host(p, &arena);
    return MM_OK;
}

static mm_status create_streams(mm_pipeline *p)
{
    MM_TRY(mm_stream_create(p->device, &p->copies));
    MM_TRY(mm_stream_create(p->device, &p->ops));
    for (int i = 0; i < p->n_slots; i++) {
        for (int input = 0; input < MM_PIPELINE_INPUTS; input++) {
            MM_TRY(mm_event_create(p->device, &p->in[input][i].sent));
            MM_TRY(mm_event_create(p->device, &p->in[input][i].used));
        }
        MM_TRY(mm_event_create(p->device, &p->out[i].received));
    }
    return MM_OK;
}

mm_status mm_pipeline_create(mm_device *device, const mm_merge_method *method,
                             mm_pipeline **pipeline)
{
    mm_pipeline *p = *pipeline = calloc(1, sizeof *p);
    if (!p)
        return mm_fail(MM_E_MEMORY, "no memory for a merge");
    p->device = device;
    p->method = method;
    p->copied = mm_device_has_own_memory(device);
    p->n_slots = p->copied ? MOST_SLOTS : 1;
    p->block_elems = p->copied ? DEVICE_BLOCK : HOST_BLOCK;
    mm_status st = take_memory(p);
    if (st == MM_OK)
        st = create_streams(p);
    if (st != MM_OK)
        mm_pipeline_destroy(pipeline);
    return st;
}

void mm_pipeline_destroy(mm_pipeline **pipeline)
{
    mm_pipeline *p = *pipeline;
    if (!p)
        return;
    /* After a failure copies may still be under way; it has been reported. */
    if (p->copies)
        (void)mm_stream_sync(p->copies);
    if (p->ops)
        (void)mm_stream_sync(p->ops);
    for (int i = 0; i < p->n_slots; i++) {
        for (int input = 0; input < MM_PIPELINE_INPUTS; input++) {
            mm_event_destroy(&p->in[input][i].sent);
            mm_event_destroy(&p->in[input][i].used);
        }
        mm_event_destroy(&p->out[i].received);
    }
    mm_stream_destroy(&p->ops);
    mm_stream_destroy(&p->copies);
    mm_host_free(p->device, &p->host_memory);
    mm_device_free(p->device, &p->device_memory);
    free(p);
    *pipeline = NULL;
}

int64_t mm_pipeline_block_elems(const mm_pipeline *p)
{
    return p->block_elems;
}

/* ---- to the device ------------------------------------------------------ */

static in_slot *current(mm_pipeline *p, mm_pipeline_input input)
{
    return &p->in[input][p->at[input]];
}

mm_status mm_pipeline_host(mm_pipeline *p, mm_pipeline_input input,
                           float **host)
{
    in_slot *slot = current(p, input);
    *host = slot->host;
    return mm_event_sync(slot->sent);
}

mm_status mm_pipeline_send(mm_pipeline *p, mm_pipeline_input input,
                           int64_t n_elems, const float **device)
{
    in_slot *slot = current(p, input);
    *device = slot->device;
    if (!p->copied)
        return MM_OK;
    MM_TRY(mm_stream_wait(p->copies, slot->used));
    MM_TRY(mm_copy_to_device(p->copies, slot->device, slot->host,
                             n_elems * (int64_t)sizeof *slot->host));
    MM_TRY(mm_event_record(slot->sent, p->copies));
    return mm_stream_wait(p->ops, slot->sent);
}

mm_status mm_pipeline_used(mm_pipeline *p, mm_pipeline_input input)
{
    in_slot *slot = current(p, input);
    p->at[input] = (p->at[input] + 1) % p->n_slots;
    return mm_event_record(slot->used, p->ops);
}

/* ---- on the device, and back -------------------------------------------- */

mm_status mm_pipeline_begin(mm_pipeline *p, int64_t first_elem, int64_t n_elems,
                            const float *base, mm_merge_block *block)
{
    *block = (mm_merge_block){.ops = mm_device_ops(p->device),
                              .stream = p->ops,
                              .first_elem = first_elem,
                              .n_elems = n_elems,
                              .base = base,
                              .tau = p->tau,
                              .winner = p->winner};
    return block->ops->fill(p->ops, p->tau, 0, n_elems);
}

mm_status mm_pipeline_end(mm_pipeline *p, const mm_merge_settings *settings,
                          const mm_merge_block *block, int64_t lo)
{
    MM_ASSERT(p->n_finished - p->n_taken < p->n_slots);
    out_slot *slot = &p->out[p->n_finished++ % p->n_slots];
    int64_t n = block->n_elems;
    slot->lo = lo;
    slot->n_elems = n;
    MM_TRY(p->method->finish(settings, block, p->merged));
    if (p->copied)
        MM_TRY(mm_copy_to_host(p->ops, slot->merged, p->merged,
                               n * (int64_t)sizeof *p->merged));
    if (p->copied && p->method->picks_winner)
        MM_TRY(mm_copy_to_host(p->ops, slot->winner, p->winner,
                               n * (int64_t)sizeof *p->winner));
    return mm_event_record(slot->received, p->ops);
}

mm_status mm_pipeline_next(mm_pipeline *p, bool all, bool *found,
                           mm_pipeline_result *result)
{
    int64_t n_under_way = p->n_finished - p->n_taken;
    *found = n_under_way >= (all ? 1 : p->n_slots);
    if (!*found)
        return MM_OK;
    const out_slot *slot = &p->out[p->n_taken++ % p->n_slots];
    *result = (mm_pipeline_result){
        .lo = slot->lo,
        .n_elems = slot->n_elems,
        .merged = slot->merged,
        .winner = p->method->picks_winner ? slot->winner : NULL};
    return mm_event_sync(slot->received);
}
