#include "comm/mpi/roll.h"

#include "src/base/clock.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Between looks for what other ranks ask: of a rank that waits or computes, and
 * of its second thread. */
static const double look_s = 0.02, second_look_s = 0.05;
/* Of the time between two looks at the clock no more counts as waited. A rank
 * that is suspended sees its clock jump; where cores are so busy that this one
 * is late, others are late to answer. */
static const double longest_tick_s = 0.05;
/* A limit may be short; this much is left for answers all the same. */
static const double shortest_answer_s = 2;
/* Until a rank that does not answer is held to be the cause of a failure. */
static const double blame_s = 5;
/* How long others leave it to the one that ends the job, which kills itself
 * after 13 s (mm_comm_abort). */
static const double silence_s = 15;
/* Who has waited so long does so in naps: cores may be wanted elsewhere. */
static const double wake_s = 1, nap_s = 0.0005;

struct mm_watch {
    mm_comm *comm;
    mm_comm_watch_plan plan;
    mm_roll *roll;

    /* Whose turn it is to call MPI. */
    pthread_mutex_t turn;
    int depth; /* of the program's own claims */

    /* Answers for this rank where its own thread is busy elsewhere. */
    pthread_t second;
    bool has_second, stops;
    pthread_mutex_t lock; /* of `stops` */
    pthread_cond_t stopped;
};

/* ---- whose turn it is ---------------------------------------------------- */

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
    if (mm_clock_s() - mm_roll_looked_s(w->roll) > look_s)
        (void)mm_roll_look(w->roll, MM_COMPUTING);
    mm_comm_end_compute(comm);
}

/** The time `after_s` from now, on the clock of `stopped`. */
static struct timespec time_after(double after_s)
{
    double at_s = mm_clock_s() + after_s, whole_s = floor(at_s);
    return (struct timespec){.tv_sec = (time_t)whole_s,
                             .tv_nsec = (long)(1e9 * (at_s - whole_s))};
}

/** Where it is not its turn, the rank's own thread waits and answers, or it
 * computes and has to poll. */
static void *answer(void *watch)
{
    mm_watch *w = watch;
    pthread_mutex_lock(&w->lock);
    while (!w->stops) {
        struct timespec until = time_after(second_look_s);
        pthread_cond_timedwait(&w->stopped, &w->lock, &until);
        if (w->stops || pthread_mutex_trylock(&w->turn) != 0)
            continue;
        (void)mm_roll_look(w->roll, MM_COMPUTING);
        pthread_mutex_unlock(&w->turn);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/** Signals are for the program's own thread. */
static mm_status start_second(mm_watch *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&w->second, NULL, answer, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    w->has_second = error == 0;
    return error == 0 ? MM_OK
                      : mm_fail(MM_E_IO,
                                "cannot start a thread that answers other "
                                "ranks: %s",
                                strerror(error));
}

static void stop_second(mm_watch *w)
{
    if (!w->has_second)
        return;
    pthread_mutex_lock(&w->lock);
    w->stops = true;
    pthread_cond_signal(&w->stopped);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->second, NULL);
}

/* ---- waiting ------------------------------------------------------------- */

static mm_presence presence_of(const mm_comm_state *state)
{
    return state->is_own_ready ? MM_READY : MM_UNREADY;
}

/** For less than a second. */
static void nap(double time_s)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)(1e9 * time_s)}, NULL);
}

/** The time since *last_s in which this rank was running; *last_s becomes now.
 */
static double tick(double *last_s)
{
    double now_s = mm_clock_s(), passed_s = now_s - *last_s;
    *last_s = now_s;
    return fmin(passed_s, longest_tick_s);
}

static mm_status answer_for(mm_watch *w, double time_s)
{
    double last_s = mm_clock_s();
    while (time_s > 0) {
        MM_TRY(mm_roll_look(w->roll, MM_READY));
        nap(look_s);
        time_s -= tick(&last_s);
    }
    return MM_OK;
}

/** Another rank has come to a verdict, and ends the job if it can. */
static mm_status fail_silently(mm_watch *w)
{
    MM_TRY(answer_for(w, silence_s));
    return mm_fail(MM_E_COMM, "rank %d has given up", mm_roll_speaker(w->roll));
}

/** A wait, from call to return. */
typedef struct wait {
    mm_comm_look *look;
    void *context;
    mm_comm_state state; /* as it was last seen */
    double waited_s;     /* of this rank's own time */
} wait;

/** Look, and answer, for `time_s` of this rank's own time, or until what is
 * waited for has come. */
static mm_status wait_for(mm_watch *w, wait *on, double time_s)
{
    double end_s = on->waited_s + time_s, last_s = mm_clock_s();
    while (on->waited_s < end_s) {
        on->state = (mm_comm_state){.is_own_ready = true};
        MM_TRY(on->look(on->context, &on->state));
        if (on->state.is_done)
            return MM_OK;
        on->waited_s += tick(&last_s);
        if (last_s - mm_roll_looked_s(w->roll) > look_s)
            MM_TRY(mm_roll_look(w->roll, presence_of(&on->state)));
        if (mm_roll_speaker(w->roll) >= 0)
            return fail_silently(w);
        if (on->waited_s < wake_s)
            sched_yield();
        else
            nap(nap_s);
    }
    return MM_OK;
}

/* ---- verdicts ------------------------------------------------------------ */

/**
 * One rank is to speak: the first to come to a verdict, the lower one of two.
 * The others still answer, and fail only if that one cannot end the job.
 */
static mm_status let_one_speak(mm_watch *w)
{
    if (mm_roll_speaker(w->roll) < 0) {
        MM_TRY(mm_roll_tell_verdict(w->roll));
        MM_TRY(answer_for(w, 10 * look_s));
    }
    int speaker = mm_roll_speaker(w->roll);
    return speaker >= 0 && speaker < w->comm->rank ? fail_silently(w) : MM_OK;
}

static mm_status fail_naming(mm_watch *w, mm_presence who, const char *what,
                             double waited_s)
{
    char names[640];
    mm_roll_names(w->roll, who, names, sizeof names);
    MM_TRY(let_one_speak(w));
    return mm_fail(MM_E_COMM,
                   "%s: %s, while others have waited %.0f s (--rank-timeout); "
                   "the job is ended",
                   names, what, waited_s);
}

/** The lowest of the ranks that wait says whom for. */
static void tell_of_wait(const mm_watch *w, double waited_s)
{
    int ready = mm_roll_lowest(w->roll, MM_READY);
    int unready = mm_roll_lowest(w->roll, MM_UNREADY);
    int lowest =
        ready < 0 || (unready >= 0 && unready < ready) ? unready : ready;
    if (lowest != w->comm->rank)
        return;
    char names[640];
    mm_roll_names(w->roll, MM_COMPUTING, names, sizeof names);
    mm_log_any_rank(w->plan.log,
                    "%d of %d ranks have waited %.0f s for %s, "
                    "still at work",
                    mm_roll_count(w->roll, MM_READY) +
                        mm_roll_count(w->roll, MM_UNREADY),
                    w->comm->n_ranks, waited_s, names);
}

/** The roll has been called: is there any use in waiting on? */
static mm_status judge(mm_watch *w, double waited_s)
{
    const mm_roll *r = w->roll;
    if (mm_roll_count(r, MM_MISSING) > 0)
        return fail_naming(w, MM_MISSING, "stuck or dead", waited_s);
    if (!mm_roll_is_caller(r)) /* knows of too few to say more */
        return MM_OK;
    if (mm_roll_count(r, MM_COMPUTING) > 0) {
        tell_of_wait(w, waited_s);
        return MM_OK;
    }
    if (!mm_roll_stands_still(r))
        return MM_OK;
    if (mm_roll_count(r, MM_UNREADY) > 0)
        return fail_naming(w, MM_UNREADY, "its device does not finish",
                           waited_s);
    return fail_naming(w, MM_READY, "nothing moves between them", waited_s);
}

/** What failed here may come of a rank that is gone: then it is named too. */
static mm_status blame(mm_watch *w, mm_status st)
{
    char why[1024], names[640];
    if (st != MM_E_COMM || mm_roll_speaker(w->roll) >= 0)
        return st;
    snprintf(why, sizeof why, "%s", mm_fail_message());
    MM_TRY(mm_roll_call(w->roll, MM_READY));
    MM_TRY(answer_for(w, blame_s));
    mm_roll_names(w->roll, MM_MISSING, names, sizeof names);
    if (!*names)
        return mm_fail(st, "rank %d: %s", w->comm->rank, why);
    MM_TRY(let_one_speak(w));
    return mm_fail(st, "%s: stuck or dead (rank %d says: %s)", names,
                   w->comm->rank, why);
}

/**
 * In silence first; then all are asked, and once more. Who is well has answered
 * by the limit: it has half of it, and is asked early so that nobody waits
 * longer for one that never does.
 */
static mm_status wait_and_ask(mm_watch *w, wait *on)
{
    const double half_s = w->plan.limit_s / 2;
    const double answers_s = fmax(half_s, shortest_answer_s);
    MM_TRY(wait_for(w, on, half_s));
    if (on->state.is_done)
        return MM_OK;
    MM_TRY(mm_roll_call(w->roll, presence_of(&on->state)));
    MM_TRY(wait_for(w, on, answers_s / 2));
    if (on->state.is_done)
        return MM_OK;
    MM_TRY(mm_roll_ask_again(w->roll, presence_of(&on->state)));
    return wait_for(w, on, answers_s / 2);
}

static mm_status wait_watching(mm_watch *w, wait *on)
{
    for (;;) {
        mm_status st = wait_and_ask(w, on);
        if (st != MM_OK)
            return blame(w, st);
        if (on->state.is_done)
            return MM_OK;
        MM_TRY(judge(w, on->waited_s));
    }
}

static mm_status wait_for_ever(mm_comm_look *look, void *context)
{
    for (;;) {
        mm_comm_state state = {0};
        MM_TRY(look(context, &state));
        if (state.is_done)
            return MM_OK;
        sched_yield();
    }
}

mm_status mm_comm_wait(mm_comm *comm, mm_comm_look *look, void *context)
{
    mm_watch *w = comm->watch;
    wait on = {.look = look, .context = context};
    if (!w)
        return wait_for_ever(look, context);
    mm_comm_begin_compute(comm);
    mm_status st = wait_watching(w, &on);
    mm_roll_passed(w->roll);
    /* What would be cleaned up may wait for a rank or a device, too. */
    if (st == MM_E_COMM && w->plan.end)
        w->plan.end(w->plan.context);
    mm_comm_end_compute(comm);
    return st;
}

static mm_status look_at_request(void *context, mm_comm_state *state)
{
    int is_over;
    MM_TRY(MM_MPI(MPI_Test(context, &is_over, MPI_STATUS_IGNORE)));
    state->is_done = is_over;
    return MM_OK;
}

mm_status mm_mpi_finish(mm_comm *comm, mm_status begun, MPI_Request *request)
{
    mm_status st = begun;
    if (st == MM_OK)
        st = comm->watch ? mm_comm_wait(comm, look_at_request, request)
                         : MM_MPI(MPI_Wait(request, MPI_STATUS_IGNORE));
    mm_comm_end_compute(comm);
    return st;
}

/* ---- life ---------------------------------------------------------------- */

static mm_status create(mm_comm *comm, const mm_comm_watch_plan *plan,
                        mm_watch **watch)
{
    mm_watch *w = *watch = calloc(1, sizeof *w);
    pthread_condattr_t monotonic;
    if (!w)
        return mm_fail(MM_E_MEMORY, "no memory to watch ranks");
    w->comm = comm;
    w->plan = *plan;
    pthread_mutex_init(&w->turn, NULL);
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (!comm->takes_turns)
        return mm_fail(MM_E_ARG, "this MPI library serves one thread only, and "
                                 "ranks cannot be watched: give "
                                 "--rank-timeout 0");
    return mm_roll_create(comm, &w->roll);
}

void mm_watch_destroy(mm_watch **watch)
{
    mm_watch *w = *watch;
    if (!w)
        return;
    stop_second(w);
    mm_roll_destroy(&w->roll);
    pthread_cond_destroy(&w->stopped);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->turn);
    free(w);
    *watch = NULL;
}

static mm_status look_for_answers(void *context, mm_comm_state *state)
{
    const mm_watch *w = context;
    MM_TRY(mm_roll_look(w->roll, MM_READY));
    state->is_done = mm_roll_count(w->roll, MM_MISSING) == 0;
    return MM_OK;
}

/** Make connections; now all are well. */
static mm_status call_first_roll(mm_watch *w)
{
    mm_comm_begin_compute(w->comm);
    mm_status st = mm_roll_call(w->roll, MM_READY);
    if (st == MM_OK)
        st = mm_comm_wait(w->comm, look_for_answers, w);
    mm_comm_end_compute(w->comm);
    return st;
}

mm_status mm_comm_watch(mm_comm *comm, const mm_comm_watch_plan *plan)
{
    mm_watch *w = NULL;
    if (comm->n_ranks == 1 || plan->limit_s == 0)
        return MM_OK;
    MM_ASSERT(!comm->watch);
    mm_status st = mm_comm_agree(comm, create(comm, plan, &w));
    if (st != MM_OK) {
        mm_watch_destroy(&w);
        return st;
    }
    comm->watch = w;
    MM_TRY(call_first_roll(w));
    return mm_comm_agree(comm, start_second(w));
}
