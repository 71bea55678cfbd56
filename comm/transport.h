#ifndef MAGMAX_COMM_TRANSPORT_H
#define MAGMAX_COMM_TRANSPORT_H

#include "comm/reducer_plan.h"
#include "comm/watch.h"

/*
 * How sums travel between ranks: what comm/reducer.c needs of a transport;
 * private to comm/. mpi/ serves memory of the host, nccl/ that of GPUs.
 *
 * Ranks make the same calls in the same order, between mm_comm_begin_compute
 * and mm_comm_end_compute. Sums are in place, the same bits on every rank.
 */
typedef struct mm_transport mm_transport;

typedef struct mm_transport_table {
    /* Start summing values[n], which are final where the plan's stream stands
     * now. */
    mm_status (*sum_floats)(mm_transport *transport, float *values, int64_t n);
    /* What the plan's stream does from now on finds the sums. */
    mm_status (*finish)(mm_transport *transport);
    /* Wait until the sums before the last finish are there. */
    mm_status (*wait)(mm_transport *transport);
    /* Other ranks are gone: let nothing wait for them any more. */
    void (*abort)(mm_transport *transport);
    void (*poll)(mm_transport *transport);
    /* Seconds that the stream has stood still for other ranks. */
    double (*wait_s)(const mm_transport *transport);
    void (*destroy)(mm_transport *transport);
} mm_transport_table;

struct mm_transport {
    const mm_transport_table *table;
};

/** Ranks: collective, same sizes. Both keep the plan's parts. */
mm_status mm_mpi_transport_create(const mm_reducer_plan *plan,
                                  mm_transport **transport);
mm_status mm_nccl_transport_create(const mm_reducer_plan *plan,
                                   mm_transport **transport);

#endif
