#ifndef MAGMAX_COMM_WATCH_H
#define MAGMAX_COMM_WATCH_H

#include "comm/comm.h"

/*
 * Waiting for other ranks as mm_comm_watch says, for what has no function in
 * comm/comm.h; for the transports in comm/.
 */

/** The state of what a rank waits for. */
typedef struct mm_comm_state {
    bool is_done;      /* what it waits for has come         */
    bool is_own_ready; /* its own part of it is done, at least */
} mm_comm_state;

typedef mm_status mm_comm_test(void *context, mm_comm_state *state);

/**
 * Call `test` until it says that what is waited for is there.
 *
 * Ranks    Local, for something that needs every rank.
 * Timing   Blocking, as mm_comm_watch says; without limit before that was
 * called. Errors   MM_E_COMM naming the ranks that do not reply, or whose
 * device does not finish; what `test` fails with. One rank, the reporter,
 * returns first, so that one message is seen, and the others only if it could
 *          not end the job.
 */
mm_status mm_comm_wait(mm_comm *comm, mm_comm_test *test, void *context);

/** What mm_comm_abort calls first: lets nothing wait any more for ranks that
 * are gone. One at a time; NULL: nothing. Ranks: local. */
void mm_comm_set_abort_hook(mm_comm *comm, void (*hook)(void *context),
                            void *context);

#endif
