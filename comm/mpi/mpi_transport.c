/* Sums of gradients in the host's memory. MPI moves only when it is polled. */

#include "comm/mpi/mpi_comm.h"
#include "comm/transport.h"
#include "src/base/clock.h"

#include <stdlib.h>

enum { MOST_PENDING = 1024 };

typedef struct mpi_transport {
    mm_transport base;
    mm_comm *comm;
    MPI_Request pending[MOST_PENDING];
    int n_pending;
    mm_status status; /* of a poll, returned by the next call that can */
    double wait_s;
} mpi_transport;

static mpi_transport *own(mm_transport *transport)
{
    return (mpi_transport *)transport;
}

static mm_status test_pending(void *context, mm_comm_state *state)
{
    mpi_transport *t = context;
    int all_done;
    MM_TRY(MM_MPI(
        MPI_Testall(t->n_pending, t->pending, &all_done, MPI_STATUSES_IGNORE)));
    state->is_done = all_done;
    return MM_OK;
}

static mm_status wait_all(mpi_transport *t)
{
    double begin_s = mm_clock_s();
    mm_status st =
        t->n_pending ? mm_comm_wait(t->comm, test_pending, t) : MM_OK;
    t->wait_s += mm_clock_s() - begin_s;
    t->n_pending = 0;
    return st;
}

static mm_status sum_floats(mm_transport *transport, float *values, int64_t n)
{
    mpi_transport *t = own(transport);
    MM_TRY(t->status);
    MM_ASSERT(n <= INT32_MAX);
    if (t->n_pending == MOST_PENDING)
        MM_TRY(wait_all(t));
    return MM_MPI(MPI_Iallreduce(MPI_IN_PLACE, values, (int)n, MPI_FLOAT,
                                 MPI_SUM, t->comm->world,
                                 &t->pending[t->n_pending++]));
}

static void abort_waits(mm_transport *transport)
{
    (void)transport; /* nothing waits but finish */
}

static void poll(mm_transport *transport)
{
    mpi_transport *t = own(transport);
    mm_comm_state unused;
    if (t->status == MM_OK && t->n_pending)
        t->status = test_pending(t, &unused);
    mm_comm_poll(t->comm);
}

static mm_status finish(mm_transport *transport)
{
    MM_TRY(own(transport)->status);
    return wait_all(own(transport));
}

static mm_status wait(mm_transport *transport)
{
    (void)transport; /* finish has waited */
    return MM_OK;
}

static double wait_s(const mm_transport *transport)
{
    return ((const mpi_transport *)transport)->wait_s;
}

static void destroy(mm_transport *transport)
{
    free(transport);
}

mm_status mm_mpi_transport_create(const mm_reducer_plan *plan,
                                  mm_transport **transport)
{
    static const mm_transport_table table = {
        .sum_floats = sum_floats,
        .finish = finish,
        .wait = wait,
        .abort = abort_waits,
        .poll = poll,
        .wait_s = wait_s,
        .destroy = destroy,
    };
    mpi_transport *t = NULL;
    mm_status st = MM_OK;
    if (plan->bf16)
        st = mm_fail(MM_E_ARG, "gradients are summed as bf16 on GPUs only");
    else if (!(t = calloc(1, sizeof *t)))
        st = mm_fail(MM_E_MEMORY, "no memory for a gradient reducer");
    st = mm_comm_agree(plan->comm, st);
    if (st != MM_OK) {
        free(t);
        return st;
    }
    t->base.table = &table;
    t->comm = plan->comm;
    *transport = &t->base;
    return MM_OK;
}
