/* Gathers ranges of the gradient into messages for a transport. */

#include "comm/reducer.h"

#include "comm/check_same.h"
#include "comm/transport.h"
#include "comm/watch.h"

#include <stdlib.h>

struct mm_reducer {
    mm_reducer_plan plan;
    mm_transport *transport; /* NULL for one rank */
    float *grad;
    int64_t lo, hi; /* gathered, not yet sent */
};

static mm_status connect(mm_reducer *r)
{
    return mm_device_has_own_memory(r->plan.device)
               ? mm_nccl_transport_create(&r->plan, &r->transport)
               : mm_mpi_transport_create(&r->plan, &r->transport);
}

static void abort_sums(void *reducer)
{
    mm_reducer *r = reducer;
    r->transport->table->abort(r->transport);
}

mm_status mm_reducer_create(const mm_reducer_plan *plan, mm_reducer **reducer)
{
    MM_TRY(MM_CHECK_SAME(plan->comm, MM_SAME_INT(plan->bucket_elems),
                         MM_SAME_INT(plan->bf16 != NULL)));
    mm_reducer *r = calloc(1, sizeof *r);
    mm_status st =
        r ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for a gradient reducer");
    *reducer = NULL;
    MM_TRY_GOTO(st, failed, mm_comm_agree(plan->comm, st));
    r->plan = *plan;
    if (mm_comm_n_ranks(plan->comm) > 1) {
        mm_comm_begin_compute(plan->comm);
        st = connect(r);
        mm_comm_end_compute(plan->comm);
    }
    MM_TRY_GOTO(st, failed, st);
    if (r->transport)
        mm_comm_set_abort_hook(plan->comm, abort_sums, r);
    *reducer = r;
    return MM_OK;
failed:
    mm_reducer_destroy(&r);
    return st;
}

void mm_reducer_destroy(mm_reducer **reducer)
{
    mm_reducer *r = *reducer;
    if (!r)
        return;
    if (r->transport) {
        mm_comm_set_abort_hook(r->plan.comm, NULL, NULL);
        mm_comm_begin_compute(r->plan.comm);
        r->transport->table->destroy(r->transport);
        mm_comm_end_compute(r->plan.comm);
    }
    free(r);
    *reducer = NULL;
}

/** Where the first k of n_parts equal parts end. Inner ends are aligned: sums
 * are slow where vectors do not fit. */
static int64_t end_of_part(const mm_reducer *r, int64_t k, int64_t n_parts)
{
    int64_t end = r->lo + (r->hi - r->lo) * k / n_parts;
    return k == n_parts ? end : end / MM_REDUCER_ALIGN * MM_REDUCER_ALIGN;
}

static mm_status send_gathered(mm_reducer *r)
{
    const int64_t n_buckets = (r->hi - r->lo) / r->plan.bucket_elems;
    const int64_t n_parts = n_buckets > 1 ? n_buckets : 1;
    int64_t at = r->lo;
    for (int64_t k = 1; k <= n_parts; k++) {
        int64_t n = end_of_part(r, k, n_parts) - at;
        if (n <= 0)
            continue;
        MM_ASSERT(n <= mm_reducer_most_elems(r->plan.bucket_elems));
        MM_TRY(r->transport->table->sum_floats(r->transport, r->grad + at, n));
        at += n;
    }
    r->lo = r->hi = 0;
    return MM_OK;
}

static mm_status gather(mm_reducer *r, float *grad, int64_t lo, int64_t hi)
{
    bool touches = grad == r->grad && r->lo < r->hi;
    if (touches && hi == r->lo) {
        r->lo = lo;
    } else if (touches && lo == r->hi) {
        r->hi = hi;
    } else {
        MM_TRY(send_gathered(r));
        r->grad = grad;
        r->lo = lo;
        r->hi = hi;
    }
    return r->hi - r->lo >= r->plan.bucket_elems ? send_gathered(r) : MM_OK;
}

mm_status mm_reducer_ready(mm_reducer *r, float *grad, int64_t lo, int64_t hi)
{
    MM_TRY(MM_CHECK_SAME(r->plan.comm, MM_SAME_INT(lo), MM_SAME_INT(hi)));
    if (!r->transport || lo == hi)
        return MM_OK;
    mm_comm_begin_compute(r->plan.comm);
    mm_status st = gather(r, grad, lo, hi);
    mm_comm_end_compute(r->plan.comm);
    return st;
}

void mm_reducer_poll(void *reducer)
{
    mm_reducer *r = reducer;
    if (!r->transport)
        return;
    mm_comm_begin_compute(r->plan.comm);
    r->transport->table->poll(r->transport);
    mm_comm_end_compute(r->plan.comm);
}

mm_status mm_reducer_finish(mm_reducer *r)
{
    MM_TRY(MM_CHECK_CALL(r->plan.comm));
    if (!r->transport)
        return MM_OK;
    mm_comm_begin_compute(r->plan.comm);
    mm_status st = send_gathered(r);
    if (st == MM_OK)
        st = r->transport->table->finish(r->transport);
    mm_comm_end_compute(r->plan.comm);
    return st;
}

mm_status mm_reducer_wait(mm_reducer *r)
{
    MM_TRY(MM_CHECK_CALL(r->plan.comm));
    if (!r->transport)
        return MM_OK;
    mm_comm_begin_compute(r->plan.comm);
    mm_status st = r->transport->table->wait(r->transport);
    mm_comm_end_compute(r->plan.comm);
    return st;
}

mm_status mm_reducer_sum_host(mm_reducer *r, double *values, int64_t n)
{
    MM_TRY(MM_CHECK_SAME(r->plan.comm, MM_SAME_INT(n)));
    if (!r->transport)
        return MM_OK;
    mm_status st = mm_comm_sum_double(r->plan.comm, values, n);
    if (st != MM_OK)
        abort_sums(r);
    return st;
}

double mm_reducer_wait_s(const mm_reducer *r)
{
    return r->transport ? r->transport->table->wait_s(r->transport) : 0;
}
