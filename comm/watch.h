#ifndef MAGMAX_COMM_WATCH_H
#define MAGMAX_COMM_WATCH_H

#include "comm/comm.h"

/**
 * Waiting for other ranks with a limit, so that one that is stuck or dead ends
 * the job instead of holding it up for ever.
 *
 * Nothing is sent as long as the waiting ends in time. A rank that has waited
 * too long calls the roll: every rank that is waiting, or is polled while it
 * computes, answers; those that do not answer are named in the failure.
 */
typedef struct mm_watch mm_watch;

/** What a rank that waits knows. */
typedef struct mm_watch_state {
    bool is_done;      /* what it waits for has come         */
    bool is_own_ready; /* its own part of it is done, at least */
} mm_watch_state;

typedef mm_status mm_watch_look(void *context, mm_watch_state *state);

/**
 * Memory   Gives *watch, freed by mm_watch_destroy; keeps `comm`.
 * Ranks    Collective. `limit_s` is how long a rank waits; 0: for ever.
 */
mm_status mm_watch_create(mm_comm *comm, double limit_s, mm_watch **watch);
void mm_watch_destroy(mm_watch **watch);

/**
 * Call `look` until it says that what is waited for is there.
 *
 * The limit counts the time that this rank itself was running: a job that is
 * suspended as a whole goes on afterwards.
 *
 * Ranks    For something that needs every rank.
 * Timing   Blocking; the limit and at most 5 s (the answers) where a rank is
 *          missing, 15 s where all wait and nothing moves. Ranks that compute
 *          and answer are waited for.
 * Errors   MM_E_COMM naming who is missing, or whose device does not finish;
 *          what `look` fails with. One rank returns first, so that one message
 * is seen, and the others only if it could not end the job.
 */
mm_status mm_watch_wait(mm_watch *watch, mm_watch_look *look, void *context);

/** mm_comm_sum_double, waiting like that. */
mm_status mm_watch_sum_double(mm_watch *watch, double *values, int64_t n);

/** Answer a roll call, from a rank that computes. Cheap. */
mm_status mm_watch_poll(mm_watch *watch);

#endif
