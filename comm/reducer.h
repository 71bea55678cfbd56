#ifndef MAGMAX_COMM_REDUCER_H
#define MAGMAX_COMM_REDUCER_H

#include "comm/reducer_plan.h"

/**
 * Sums ranges of the gradient buffer over ranks while the backward pass still
 * computes others: by MPI where the device's memory is the host's, by NCCL on a
 * stream of its own where it is a GPU's.
 *
 * A round: wait for the one before, any calls of ready, then finish.
 *
 * Ranges that touch are gathered until they have bucket_elems, and then leave
 * in one message, which so ends where a range does. From twice bucket_elems on
 * they leave in several of equal length, as many as have bucket_elems each.
 * Shorter messages are only the last of a round, and one before a range that
 * does not touch.
 */
typedef struct mm_reducer mm_reducer;

/**
 * Memory   Gives *reducer, freed by mm_reducer_destroy; keeps what the plan
 *          points to.
 * Ranks    Collective, same bucket_elems and type of sums.
 * Errors   Agreed: MM_E_DEVICE without NCCL, or where ranks share a GPU;
 *          MM_E_ARG for bf16 on hosts.
 */
mm_status mm_reducer_create(const mm_reducer_plan *plan, mm_reducer **reducer);
void mm_reducer_destroy(mm_reducer **reducer);

/**
 * Say that grad[lo, hi), in the device's memory, is final on this rank once the
 * stream has done what is enqueued. Ranges of one round are disjoint and each
 * begins or ends where an earlier one did, or stands alone.
 *
 * Memory   Borrowed, and not to be touched, until mm_reducer_finish.
 * Ranks    Collective, same lo, hi, same order of calls.
 * Timing   Starts the transfer and returns.
 * Repeat   Same bits on every rank, and on reruns with as many ranks; not
 *          across different numbers of ranks.
 */
mm_status mm_reducer_ready(mm_reducer *reducer, float *grad, int64_t lo,
                           int64_t hi);

/** Let the transport move; cheap, callable from mm_stream_set_poll. */
void mm_reducer_poll(void *reducer);

/**
 * Send what has not been sent. What the stream does from now on finds every
 * range summed.
 *
 * Ranks    Collective.
 * Timing   Enqueued on a GPU; on the host, waits until all is summed.
 * Errors   MM_E_COMM: as mm_comm_watch.
 */
mm_status mm_reducer_finish(mm_reducer *reducer);

/**
 * Wait until the sums of the last round are there; what the stream does with
 * them may still be under way. To be called before much is enqueued behind them
 * and before the host waits for the stream: a device's queue that is full of
 * work behind a sum which never comes would hold up the host without end.
 *
 * Ranks    Collective.
 * Errors   MM_E_COMM: as mm_comm_watch.
 */
mm_status mm_reducer_wait(mm_reducer *reducer);

/** mm_comm_sum_double; where that fails, nothing waits for the round either.
 * Ranks: collective, same n. */
mm_status mm_reducer_sum_host(mm_reducer *reducer, double *values, int64_t n);

/** Seconds since the start that the stream has stood still for other ranks:
 * what was not hidden behind computation. Ranks: local. */
double mm_reducer_wait_s(const mm_reducer *reducer);

#endif
