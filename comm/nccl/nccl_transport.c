/* Sums of gradients in the memory of GPUs, by the module of NCCL. */

#include "comm/nccl/nccl_table.h"
#include "comm/transport.h"

#include "src/base/clock.h"
#include "src/base/module.h"

#include <stdlib.h>

/*
 * Sums have a stream of their own: a range is summed while the plan's stream
 * computes the next one. That stream is urgent, or its blocks would wait until
 * products that are enqueued already leave room. The host waits only in `wait`,
 * and there, watching, never inside the driver: nothing that may hold up the
 * host is called while sums that need other ranks are outstanding for long.
 */

typedef struct nccl_transport {
    mm_transport base;
    const mm_nccl *nccl;
    mm_reducer_plan plan;
    mm_nccl_comm *comm;
    mm_stream *stream;  /* sums                                       */
    mm_event *computed; /* plan's stream: what is to be summed is there */
    mm_event *summed;   /* our stream                                 */
    void *wire;         /* one message as bf16, where sums travel so */
    bool is_under_way;  /* a round that wait has not seen the end of */
    double computed_s, summed_s; /* when wait saw them past; 0: not yet */
    double wait_s;
} nccl_transport;

static nccl_transport *own(mm_transport *transport)
{
    return (nccl_transport *)transport;
}

/** Where others cannot go on either, let no stream wait for them. */
static mm_status or_abort(nccl_transport *t, mm_status st)
{
    if (st != MM_OK && t->comm)
        t->nccl->abort(t->comm);
    return st;
}

/* ---- sums ---------------------------------------------------------------- */

static mm_status test_ready(void *context, mm_comm_state *state)
{
    nccl_transport *t = context;
    return t->nccl->is_ready(t->comm, &state->is_done);
}

/** Enqueue a sum; the first ones of a run may have to make connections. */
static mm_status sum(nccl_transport *t, void *values, int64_t n,
                     mm_nccl_type type)
{
    MM_TRY(t->nccl->sum(t->comm, values, n, type, mm_stream_native(t->stream)));
    return mm_comm_wait(t->plan.comm, test_ready, t);
}

static mm_status follow_compute(nccl_transport *t)
{
    MM_TRY(mm_event_record(t->computed, t->plan.stream));
    return mm_stream_wait(t->stream, t->computed);
}

static mm_status sum_as_bf16(nccl_transport *t, float *values, int64_t n)
{
    const mm_reducer_wire *bf16 = t->plan.bf16;
    MM_TRY(bf16->pack(bf16->context, t->stream, t->wire, values, n));
    MM_TRY(sum(t, t->wire, n, MM_NCCL_BF16));
    return bf16->unpack(bf16->context, t->stream, values, t->wire, n);
}

static mm_status sum_floats(mm_transport *transport, float *values, int64_t n)
{
    nccl_transport *t = own(transport);
    mm_status st = follow_compute(t);
    if (st == MM_OK)
        st = t->plan.bf16 ? sum_as_bf16(t, values, n)
                          : sum(t, values, n, MM_NCCL_FLOAT);
    return or_abort(t, st);
}

static mm_status finish(mm_transport *transport)
{
    nccl_transport *t = own(transport);
    t->is_under_way = true;
    t->computed_s = t->summed_s = 0;
    MM_TRY(mm_event_record(t->computed, t->plan.stream));
    MM_TRY(mm_event_record(t->summed, t->stream));
    return mm_stream_wait(t->plan.stream, t->summed);
}

/* ---- waiting ------------------------------------------------------------- */

/** When the host first saw an event past; `at_s` is 0 before. */
static mm_status note_time(mm_event *event, double *at_s)
{
    bool is_past;
    MM_TRY(mm_event_is_past(event, &is_past));
    if (is_past)
        *at_s = mm_clock_s();
    return MM_OK;
}

static mm_status test_summed(void *context, mm_comm_state *state)
{
    nccl_transport *t = context;
    bool is_ready;
    if (t->computed_s == 0)
        MM_TRY(note_time(t->computed, &t->computed_s));
    else
        MM_TRY(note_time(t->summed, &t->summed_s));
    state->is_own_ready = t->computed_s > 0;
    state->is_done = t->summed_s > 0;
    return t->nccl->is_ready(t->comm, &is_ready);
}

static mm_status wait(mm_transport *transport)
{
    nccl_transport *t = own(transport);
    if (!t->is_under_way)
        return MM_OK;
    t->is_under_way = false;
    mm_status st = mm_comm_wait(t->plan.comm, test_summed, t);
    t->wait_s += t->summed_s - t->computed_s;
    return or_abort(t, st);
}

static void abort_sums(mm_transport *transport)
{
    nccl_transport *t = own(transport);
    t->nccl->abort(t->comm);
}

static void poll(mm_transport *transport)
{
    (void)transport; /* GPUs move by themselves */
}

static double wait_s(const mm_transport *transport)
{
    return ((const nccl_transport *)transport)->wait_s;
}

/* ---- joining ------------------------------------------------------------- */

mm_status mm_nccl_open(const mm_nccl **nccl)
{
    static const mm_module module = {
        .file = "libmagmax_nccl.so",
        .variable = "MAGMAX_NCCL_MODULE",
        .table_bytes = sizeof(mm_nccl),
    };
    const void *table = NULL;
    mm_status st = mm_module_open(&module, &table);
    *nccl = table;
    return st == MM_OK
               ? st
               : mm_fail(st,
                         "training over several GPUs needs NCCL: %s; give "
                         "--device cpu, or start one rank",
                         mm_fail_message());
}

static mm_status prepare(nccl_transport *t)
{
    const mm_reducer_plan *p = &t->plan;
    MM_TRY(mm_nccl_open(&t->nccl));
    MM_TRY(mm_stream_create_urgent(p->device, &t->stream));
    MM_TRY(mm_event_create(p->device, &t->computed));
    MM_TRY(mm_event_create(p->device, &t->summed));
    const int64_t wire_elems = mm_reducer_most_elems(p->bucket_elems);
    return p->bf16 ? mm_device_alloc(p->device, 2 * wire_elems, &t->wire)
                   : MM_OK;
}

static mm_status join(nccl_transport *t)
{
    mm_comm *comm = t->plan.comm;
    char id[MM_NCCL_ID_BYTES] = {0};
    mm_status st = MM_OK;
    if (mm_comm_rank(comm) == 0)
        st = t->nccl->make_id(id);
    MM_TRY(mm_comm_agree(comm, st));
    MM_TRY(mm_comm_broadcast(comm, id, sizeof id, 0));
    st = t->nccl->create(id, mm_comm_rank(comm), mm_comm_n_ranks(comm),
                         &t->comm);
    if (st == MM_OK)
        st = mm_comm_wait(t->plan.comm, test_ready, t);
    return mm_comm_agree(comm, or_abort(t, st));
}

static void destroy(mm_transport *transport)
{
    nccl_transport *t = own(transport);
    if (t->comm)
        t->nccl->destroy(t->comm);
    mm_device_free(t->plan.device, &t->wire);
    mm_event_destroy(&t->summed);
    mm_event_destroy(&t->computed);
    mm_stream_destroy(&t->stream);
    free(t);
}

mm_status mm_nccl_transport_create(const mm_reducer_plan *plan,
                                   mm_transport **transport)
{
    static const mm_transport_table table = {
        .sum_floats = sum_floats,
        .finish = finish,
        .wait = wait,
        .abort = abort_sums,
        .poll = poll,
        .wait_s = wait_s,
        .destroy = destroy,
    };
    nccl_transport *t = calloc(1, sizeof *t);
    mm_status st = mm_fail(MM_E_MEMORY, "no memory for a gradient reducer");
    if (t) {
        t->base.table = &table;
        t->plan = *plan;
        st = prepare(t);
    }
    st = mm_comm_agree(plan->comm, st);
    if (st == MM_OK)
        st = join(t);
    if (st == MM_OK)
        *transport = &t->base;
    else if (t)
        destroy(&t->base);
    return st;
}
