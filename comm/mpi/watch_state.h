#ifndef MAGMAX_COMM_MPI_WATCH_STATE_H
#define MAGMAX_COMM_MPI_WATCH_STATE_H

#include "comm/mpi/probe.h"

#include <pthread.h>

/*
 * What a rank that is watched keeps, and what the files that watch call of each
 * other; private to comm/mpi. Ranks: local, all of it.
 */

struct mm_watch {
    mm_comm *comm;
    mm_comm_watch_plan plan;
    mm_probe *probe;

    pthread_mutex_t turn; /* to call MPI */
    int depth;            /* of the program's own claims */

    /* Replies for this rank where its own thread is busy elsewhere. */
    pthread_t reply_thread;
    bool has_reply_thread, stops;
    pthread_mutex_t lock; /* of `stops` */
    pthread_cond_t stopped;
};

/* ---- serve.c ------------------------------------------------------------- */

/** Between replies to other ranks, of one that waits or computes. */
#define MM_SERVE_S 0.02

/** Signals are for the program's own thread. */
mm_status mm_watch_start_replies(mm_watch *watch);
void mm_watch_stop_replies(mm_watch *watch);

/** The time since *last_s in which this rank was running; *last_s becomes now.
 */
double mm_watch_tick(double *last_s);

/** Sleep, for less than a second. */
void mm_watch_nap(double time_s);

/** Reply to others for `time_s` of this rank's own time. */
mm_status mm_watch_serve_for(mm_watch *watch, double time_s);

/* ---- diagnosis.c --------------------------------------------------------- */

/** Another rank reports, and ends the job if it can: fail after that time. */
mm_status mm_watch_fail_silently(mm_watch *watch);

/** Ranks were probed: MM_OK where there is any use in waiting on, or the error
 * that names those that hold this one up. */
mm_status mm_watch_diagnose(mm_watch *watch, double waited_s);

/** The error `st`, which may come of a rank that is gone: then with its name.
 */
mm_status mm_watch_explain(mm_watch *watch, mm_status st);

#endif
