/* Waits for other ranks: first in silence, then with liveness probes. */

#include "comm/mpi/watch_state.h"

#include "src/base/clock.h"

#include <math.h>
#include <sched.h>

/* A limit may be short; this much is left for replies all the same. */
static const double shortest_reply_s = 2;
/* What has waited so long does so in naps: cores may be wanted elsewhere. */
static const double wake_s = 1, nap_s = 0.0005;

/** A wait, from call to return. */
typedef struct wait {
    mm_comm_test *test;
    void *context;
    mm_comm_state state; /* as it was last seen */
    double waited_s;     /* of this rank's own time */
} wait;

static mm_rank_state state_of(const wait *on)
{
    return on->state.is_own_ready ? MM_RANK_WAITING : MM_RANK_DEVICE_BUSY;
}

/** Test, and reply, for `time_s` of this rank's own time, or until what is
 * waited for has come. */
static mm_status wait_for(mm_watch *w, wait *on, double time_s)
{
    double end_s = on->waited_s + time_s, last_s = mm_clock_s();
    while (on->waited_s < end_s) {
        on->state = (mm_comm_state){.is_own_ready = true};
        MM_TRY(on->test(on->context, &on->state));
        if (on->state.is_done)
            return MM_OK;
        on->waited_s += mm_watch_tick(&last_s);
        if (last_s - mm_probe_served_s(w->probe) > MM_SERVE_S)
            MM_TRY(mm_probe_serve(w->probe, state_of(on)));
        if (mm_probe_reporter(w->probe) >= 0)
            return mm_watch_fail_silently(w);
        if (on->waited_s < wake_s)
            sched_yield();
        else
            mm_watch_nap(nap_s);
    }
    return MM_OK;
}

/**
 * In silence first; then all are probed, and once more. A rank that is well has
 * replied by the limit: it has half of it, and is probed early so that no rank
 * waits longer for one that never does.
 */
static mm_status wait_and_probe(mm_watch *w, wait *on)
{
    const double half_s = w->plan.limit_s / 2;
    const double replies_s = fmax(half_s, shortest_reply_s);
    MM_TRY(wait_for(w, on, half_s));
    if (on->state.is_done)
        return MM_OK;
    MM_TRY(mm_probe_start(w->probe, state_of(on)));
    MM_TRY(wait_for(w, on, replies_s / 2));
    if (on->state.is_done)
        return MM_OK;
    MM_TRY(mm_probe_repeat(w->probe, state_of(on)));
    return wait_for(w, on, replies_s / 2);
}

static mm_status wait_watched(mm_watch *w, wait *on)
{
    for (;;) {
        mm_status st = wait_and_probe(w, on);
        if (st != MM_OK)
            return mm_watch_explain(w, st);
        if (on->state.is_done)
            return MM_OK;
        MM_TRY(mm_watch_diagnose(w, on->waited_s));
    }
}

static mm_status wait_for_ever(mm_comm_test *test, void *context)
{
    for (;;) {
        mm_comm_state state = {0};
        MM_TRY(test(context, &state));
        if (state.is_done)
            return MM_OK;
        sched_yield();
    }
}

mm_status mm_comm_wait(mm_comm *comm, mm_comm_test *test, void *context)
{
    mm_watch *w = comm->watch;
    wait on = {.test = test, .context = context};
    if (!w)
        return wait_for_ever(test, context);
    mm_comm_begin_compute(comm);
    mm_status st = wait_watched(w, &on);
    mm_probe_count_wait(w->probe);
    comm->has_failed |= st == MM_E_COMM;
    /* What would be cleaned up may wait for a rank or a device, too. */
    if (st == MM_E_COMM && w->plan.end)
        w->plan.end(w->plan.context);
    mm_comm_end_compute(comm);
    return st;
}

static mm_status test_request(void *context, mm_comm_state *state)
{
    int is_over;
    MM_TRY(MM_MPI(MPI_Test(context, &is_over, MPI_STATUS_IGNORE)));
    state->is_done = is_over;
    return MM_OK;
}

mm_status mm_mpi_finish(mm_comm *comm, mm_status begun, MPI_Request *request)
{
    mm_status st = begun;
    if (st == MM_OK)
        st = comm->watch ? mm_comm_wait(comm, test_request, request)
                         : MM_MPI(MPI_Wait(request, MPI_STATUS_IGNORE));
    mm_comm_end_compute(comm);
    return st;
}
