/* Whose turn it is to call MPI, and replies to other ranks' liveness probes:
 * from polls, and from a thread where the rank's own is busy elsewhere. */

#include "comm/mpi/watch_state.h"

#include "src/base/clock.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <time.h>

/* Between replies of the reply thread. */
static const double thread_s = 0.05;
/* Of the time between two looks at the clock no more counts as waited. A rank
 * that is suspended sees its clock jump; where cores are so busy that this one
 * is late, others are late to reply. */
static const double longest_tick_s = 0.05;

void mm_comm_begin_compute(mm_comm *comm)
{
    mm_watch *w = comm->watch;
    if (w && w->depth++ == 0)
        pthread_mutex_lock(&w->turn);
}

void mm_comm_end_compute(mm_comm *comm)
{
    mm_watch *w = comm->watch;
    if (w && --w->depth == 0)
        pthread_mutex_unlock(&w->turn);
}

void mm_comm_poll(void *comm)
{
    const mm_watch *w = ((mm_comm *)comm)->watch;
    if (!w)
        return;
    mm_comm_begin_compute(comm);
    if (mm_clock_s() - mm_probe_served_s(w->probe) > MM_SERVE_S)
        (void)mm_probe_serve(w->probe, MM_RANK_BUSY);
    mm_comm_end_compute(comm);
}

double mm_watch_tick(double *last_s)
{
    double now_s = mm_clock_s(), passed_s = now_s - *last_s;
    *last_s = now_s;
    return fmin(passed_s, longest_tick_s);
}

void mm_watch_nap(double time_s)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)(1e9 * time_s)}, NULL);
}

mm_status mm_watch_serve_for(mm_watch *w, double time_s)
{
    double last_s = mm_clock_s();
    while (time_s > 0) {
        MM_TRY(mm_probe_serve(w->probe, MM_RANK_WAITING));
        mm_watch_nap(MM_SERVE_S);
        time_s -= mm_watch_tick(&last_s);
    }
    return MM_OK;
}

/* ---- the reply thread ---------------------------------------------------- */

/** The time `after_s` from now, on the clock of `stopped`. */
static struct timespec time_after(double after_s)
{
    double at_s = mm_clock_s() + after_s, whole_s = floor(at_s);
    return (struct timespec){.tv_sec = (time_t)whole_s,
                             .tv_nsec = (long)(1e9 * (at_s - whole_s))};
}

/** Where it is not its turn, the rank's own thread waits and replies, or it
 * computes and has to poll. */
static void *reply(void *watch)
{
    mm_watch *w = watch;
    pthread_mutex_lock(&w->lock);
    while (!w->stops) {
        struct timespec until = time_after(thread_s);
        pthread_cond_timedwait(&w->stopped, &w->lock, &until);
        if (w->stops || pthread_mutex_trylock(&w->turn) != 0)
            continue;
        (void)mm_probe_serve(w->probe, MM_RANK_BUSY);
        pthread_mutex_unlock(&w->turn);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

mm_status mm_watch_start_replies(mm_watch *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&w->reply_thread, NULL, reply, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    w->has_reply_thread = error == 0;
    return error == 0 ? MM_OK
                      : mm_fail(MM_E_IO,
                                "cannot start a thread that replies to other "
                                "ranks: %s",
                                strerror(error));
}

void mm_watch_stop_replies(mm_watch *w)
{
    if (!w->has_reply_thread)
        return;
    pthread_mutex_lock(&w->lock);
    w->stops = true;
    pthread_cond_signal(&w->stopped);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->reply_thread, NULL);
}
