#ifndef MAGMAX_COMM_WATCH_H
#define MAGMAX_COMM_WATCH_H

#include "comm/comm.h"

/*
 * Waiting for other ranks as mm_comm_watch says, for what has no function in
 * comm/comm.h; for the transports in comm/.
 */

/** What a rank that waits knows. */
typedef struct mm_comm_state {
    bool is_done;      /* what it waits for has come         */
    bool is_own_ready; /* its own part of it is done, at least */
} mm_comm_state;

typedef mm_status mm_comm_look(void *context, mm_comm_state *state);

/**
 * Call `look` until it says that what is waited for is there.
 *
 * Ranks    For something that needs every rank.
 * Timing   Blocking, as mm_comm_watch says; for ever before that was called.
 * Errors   MM_E_COMM naming who is missing, or whose device does not finish;
 *          what `look` fails with. One rank returns first, so that one message
 *          is seen, and the others only if it could not end the job.
 */
mm_status mm_comm_wait(mm_comm *comm, mm_comm_look *look, void *context);

/** What mm_comm_abort calls first: lets nothing wait any more for ranks that
 * are gone. One at a time; NULL: nothing. */
void mm_comm_set_give_up(mm_comm *comm, void (*give_up)(void *context),
                         void *context);

#endif
