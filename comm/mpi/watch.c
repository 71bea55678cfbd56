/* Starting and ending to watch ranks. */

#include "comm/mpi/watch_state.h"

#include "comm/check_same.h"

#include <stdlib.h>
#include <time.h>

static mm_status create(mm_comm *comm, const mm_comm_watch_plan *plan,
                        mm_watch **watch)
{
    mm_watch *w = *watch = calloc(1, sizeof *w);
    pthread_condattr_t monotonic;
    if (!w)
        return mm_fail(MM_E_MEMORY, "no memory to watch ranks");
    w->comm = comm;
    w->plan = *plan;
    pthread_mutex_init(&w->turn, NULL);
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (!comm->is_serialized)
        return mm_fail(MM_E_ARG, "this MPI library serves one thread only, and "
                                 "ranks cannot be watched: give "
                                 "--rank-timeout 0");
    return mm_probe_create(comm, &w->probe);
}

static void destroy(mm_watch *w)
{
    if (!w)
        return;
    mm_watch_stop_replies(w);
    mm_probe_destroy(&w->probe);
    pthread_cond_destroy(&w->stopped);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->turn);
    free(w);
}

void mm_watch_destroy(mm_comm *comm)
{
    destroy(comm->watch);
    comm->watch = NULL;
}

static mm_status test_replies(void *context, mm_comm_state *state)
{
    const mm_watch *w = context;
    MM_TRY(mm_probe_serve(w->probe, MM_RANK_WAITING));
    state->is_done = mm_probe_count(w->probe, MM_RANK_SILENT) == 0;
    return MM_OK;
}

/** Make connections; now all are well. */
static mm_status probe_once(mm_watch *w)
{
    mm_comm_begin_compute(w->comm);
    mm_status st = mm_probe_start(w->probe, MM_RANK_WAITING);
    if (st == MM_OK)
        st = mm_comm_wait(w->comm, test_replies, w);
    mm_comm_end_compute(w->comm);
    return st;
}

mm_status mm_comm_watch(mm_comm *comm, const mm_comm_watch_plan *plan)
{
    mm_watch *w = NULL;
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_REAL(plan->limit_s)));
    if (comm->n_ranks == 1 || plan->limit_s == 0)
        return MM_OK;
    MM_ASSERT(!comm->watch);
    mm_status st = mm_comm_agree(comm, create(comm, plan, &w));
    if (st != MM_OK) {
        destroy(w);
        return st;
    }
    comm->watch = w;
    MM_TRY(probe_once(w));
    return mm_comm_agree(comm, mm_watch_start_replies(w));
}
