#include "comm/reducer.h"
#include "comm/mpi/mpi_comm.h"

#include "src/base/log.h"

#include <stdlib.h>

enum { MOST_PENDING = 1024 };

struct mm_reducer {
    mm_comm *comm;
    int64_t bucket_elems;
    float *grad;
    int64_t lo, hi; /* gathered, not yet sent */
    MPI_Request pending[MOST_PENDING];
    int n_pending;
    mm_status status; /* of a poll, told by the next call that can */
    double wait_s;
};

mm_status mm_reducer_create(mm_comm *comm, int64_t bucket_elems,
                            mm_reducer **reducer)
{
    mm_reducer *r = calloc(1, sizeof *r);
    if (!r)
        return mm_fail(MM_E_MEMORY, "no memory for a gradient reducer");
    r->comm = comm;
    r->bucket_elems = bucket_elems;
    *reducer = r;
    return MM_OK;
}

void mm_reducer_destroy(mm_reducer **reducer)
{
    free(*reducer);
    *reducer = NULL;
}

static mm_status wait_all(mm_reducer *r)
{
    double begin_s = mm_clock_s();
    mm_status st =
        MM_MPI(MPI_Waitall(r->n_pending, r->pending, MPI_STATUSES_IGNORE));
    r->wait_s += mm_clock_s() - begin_s;
    r->n_pending = 0;
    return st;
}

static mm_status send_gathered(mm_reducer *r)
{
    for (int64_t at = r->lo; at < r->hi;) {
        int64_t left = r->hi - at;
        int piece = (int)(left < r->bucket_elems ? left : r->bucket_elems);
        if (r->n_pending == MOST_PENDING)
            MM_TRY(wait_all(r));
        MM_TRY(MM_MPI(MPI_Iallreduce(MPI_IN_PLACE, r->grad + at, piece,
                                     MPI_FLOAT, MPI_SUM, r->comm->world,
                                     &r->pending[r->n_pending])));
        r->n_pending++;
        at += piece;
    }
    r->lo = r->hi = 0;
    return MM_OK;
}

mm_status mm_reducer_ready(mm_reducer *r, float *grad, int64_t lo, int64_t hi)
{
    if (r->comm->n_ranks == 1 || lo == hi)
        return r->status;
    if (r->lo == r->hi || grad != r->grad) {
        MM_TRY(send_gathered(r));
        r->grad = grad;
        r->lo = lo;
        r->hi = hi;
    } else if (hi == r->lo) {
        r->lo = lo;
    } else if (lo == r->hi) {
        r->hi = hi;
    } else {
        MM_TRY(send_gathered(r));
        r->lo = lo;
        r->hi = hi;
    }
    if (r->hi - r->lo >= r->bucket_elems)
        MM_TRY(send_gathered(r));
    return r->status;
}

void mm_reducer_poll(void *reducer)
{
    mm_reducer *r = reducer;
    int all_done;
    if (r->n_pending && r->status == MM_OK)
        r->status = MM_MPI(MPI_Testall(r->n_pending, r->pending, &all_done,
                                       MPI_STATUSES_IGNORE));
}

mm_status mm_reducer_finish(mm_reducer *r)
{
    MM_TRY(r->status);
    MM_TRY(send_gathered(r));
    return wait_all(r);
}

double mm_reducer_wait_s(const mm_reducer *r)
{
    return r->wait_s;
}
