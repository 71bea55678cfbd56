#ifndef MAGMAX_COMM_REDUCER_H
#define MAGMAX_COMM_REDUCER_H

#include "comm/comm.h"

/**
 * Sums ranges of the gradient buffer over ranks while the backward pass still
 * computes others. The host transport moves only when polled.
 */
typedef struct mm_reducer mm_reducer;

/**
 * Memory   Gives *reducer, freed by mm_reducer_destroy; keeps `comm`. Ranges
 *          smaller than `bucket_elems` that touch travel as one message.
 * Ranks    Collective, same bucket_elems.
 */
mm_status mm_reducer_create(mm_comm *comm, int64_t bucket_elems,
                            mm_reducer **reducer);
void mm_reducer_destroy(mm_reducer **reducer);

/**
 * Say that grad[lo, hi) is final on this rank. Ranges of one round are disjoint
 * and each begins or ends where an earlier one did, or stands alone.
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

/** Send what has not been sent, and wait until every range is summed. */
mm_status mm_reducer_finish(mm_reducer *reducer);

/** Seconds that mm_reducer_finish has waited since the start: what was not
 * hidden behind computation. */
double mm_reducer_wait_s(const mm_reducer *reducer);

#endif
