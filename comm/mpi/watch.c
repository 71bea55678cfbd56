#include "comm/watch.h"
#include "comm/mpi/mpi_comm.h"

#include "src/base/log.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Between looks for what other ranks ask. */
static const double probe_s = 0.02;
/* A rank that was itself suspended sees its clock jump. */
static const double longest_tick_s = 0.5;
static const double longest_grace_s = 5;

enum { WATCH_TAG = 7 };

/** What a rank says of itself. */
typedef enum presence {
    MISSING,   /* nothing */
    COMPUTING, /* it has not come yet, but is well                        */
    UNREADY,   /* it waits, and its own device has not finished its part  */
    READY      /* it waits for others alone                               */
} presence;

/** Who asks wants every rank to answer; an answer repeats the question's
 * number. A verdict says that its sender is about to end the job. */
typedef enum note_kind { QUESTION, ANSWER, VERDICT, N_KINDS } note_kind;

typedef struct note {
    int64_t number;
    int32_t kind;
    int32_t presence;
} note;

/** Who a rank is, for people. */
typedef struct whereabouts {
    char host[64];
    int64_t pid;
} whereabouts;

struct mm_watch {
    mm_comm *comm;
    MPI_Comm notes;      /* apart from what the notes are about */
    MPI_Request receipt; /* of the next note */
    note incoming;
    double limit_s, grace_s;
    double probed_s;     /* when notes were last looked for */
    int64_t n_calls;     /* of the roll, by this rank */
    presence *heard;     /* [n_ranks] in the last roll call */
    int speaker;         /* lowest rank that has come to a verdict, or -1 */
    note *outbox;        /* [n_ranks, N_KINDS] what is leaving */
    whereabouts *places; /* [n_ranks] */
};

/* ---- notes --------------------------------------------------------------- */

static mm_status tell(mm_watch *w, int rank, note what)
{
    /* Nobody waits for it to leave: it may be for a rank that never takes it.
     * One that is overtaken by a later one may as well carry its words. */
    note *leaving = &w->outbox[rank * N_KINDS + what.kind];
    MPI_Request request;
    *leaving = what;
    MM_TRY(MM_MPI(MPI_Isend(leaving, sizeof *leaving, MPI_BYTE, rank, WATCH_TAG,
                            w->notes, &request)));
    return MM_MPI(MPI_Request_free(&request));
}

static mm_status expect(mm_watch *w)
{
    return MM_MPI(MPI_Irecv(&w->incoming, sizeof w->incoming, MPI_BYTE,
                            MPI_ANY_SOURCE, WATCH_TAG, w->notes, &w->receipt));
}

/** Take in what has come, and answer what was asked. */
static mm_status take_notes(mm_watch *w, presence mine)
{
    w->probed_s = mm_clock_s();
    for (;;) {
        int there = 0;
        MPI_Status from;
        MM_TRY(MM_MPI(MPI_Test(&w->receipt, &there, &from)));
        if (!there)
            return MM_OK;
        const note what = w->incoming;
        const int rank = from.MPI_SOURCE;
        MM_TRY(expect(w));
        if (what.kind != ANSWER || what.number == w->n_calls)
            w->heard[rank] = (presence)what.presence;
        if (what.kind == VERDICT && (w->speaker < 0 || rank < w->speaker))
            w->speaker = rank;
        if (what.kind == QUESTION)
            MM_TRY(tell(w, rank,
                        (note){.number = what.number,
                               .kind = ANSWER,
                               .presence = (int32_t)mine}));
    }
}

static mm_status tell_all(mm_watch *w, note what)
{
    for (int rank = 0; rank < w->comm->n_ranks; rank++)
        if (rank != w->comm->rank)
            MM_TRY(tell(w, rank, what));
    return MM_OK;
}

static mm_status take_notes_for(mm_watch *w, double time_s, presence mine)
{
    double begin_s = mm_clock_s();
    while (mm_clock_s() - begin_s < time_s) {
        MM_TRY(take_notes(w, mine));
        sched_yield();
    }
    return MM_OK;
}

static mm_status call_roll(mm_watch *w, presence mine)
{
    for (int rank = 0; rank < w->comm->n_ranks; rank++)
        w->heard[rank] = rank == w->comm->rank ? mine : MISSING;
    return tell_all(w, (note){.number = ++w->n_calls,
                              .kind = QUESTION,
                              .presence = (int32_t)mine});
}

static int count(const mm_watch *w, presence what)
{
    int n = 0;
    for (int rank = 0; rank < w->comm->n_ranks; rank++)
        n += w->heard[rank] == what;
    return n;
}

/**
 * Have every rank talk to every other once: transports make connections when
 * they are first used, and not while a third rank is stuck.
 */
static mm_status make_connections(mm_watch *w)
{
    int all_have = 0;
    MPI_Request barrier;
    MM_TRY(expect(w));
    MM_TRY(call_roll(w, READY));
    while (count(w, MISSING) > 0)
        MM_TRY(take_notes(w, READY));
    MM_TRY(MM_MPI(MPI_Ibarrier(w->notes, &barrier)));
    while (!all_have) {
        MM_TRY(take_notes(w, READY));
        MM_TRY(MM_MPI(MPI_Test(&barrier, &all_have, MPI_STATUS_IGNORE)));
    }
    return MM_OK;
}

/* ---- life --------------------------------------------------------------- */

mm_status mm_watch_create(mm_comm *comm, double limit_s, mm_watch **watch)
{
    mm_watch *w = calloc(1, sizeof *w);
    mm_status st = MM_OK;
    if (w) {
        w->comm = comm;
        w->limit_s = limit_s;
        w->grace_s = fmin(limit_s, longest_grace_s);
        w->speaker = -1;
        w->notes = MPI_COMM_NULL;
        w->receipt = MPI_REQUEST_NULL;
        w->heard = calloc((size_t)comm->n_ranks, sizeof *w->heard);
        w->outbox = calloc((size_t)comm->n_ranks * N_KINDS, sizeof *w->outbox);
        w->places = calloc((size_t)comm->n_ranks, sizeof *w->places);
    }
    if (!w || !w->heard || !w->outbox || !w->places)
        st = mm_fail(MM_E_MEMORY, "no memory for a watch over ranks");
    st = mm_comm_agree(comm, st);
    if (st == MM_OK) {
        whereabouts mine = {.pid = getpid()};
        (void)gethostname(mine.host, sizeof mine.host - 1);
        st = mm_comm_allgather(comm, &mine, sizeof mine, w->places);
    }
    if (st == MM_OK)
        st = MM_MPI(MPI_Comm_dup(comm->world, &w->notes));
    if (st == MM_OK)
        st = make_connections(w);
    if (st != MM_OK)
        mm_watch_destroy(&w);
    *watch = w;
    return st;
}

void mm_watch_destroy(mm_watch **watch)
{
    if (!*watch)
        return;
    if ((*watch)->receipt != MPI_REQUEST_NULL) {
        MPI_Cancel(&(*watch)->receipt);
        MPI_Wait(&(*watch)->receipt, MPI_STATUS_IGNORE);
    }
    if ((*watch)->notes != MPI_COMM_NULL && (*watch)->speaker < 0)
        MPI_Comm_free(&(*watch)->notes);
    free((*watch)->heard);
    free((*watch)->outbox);
    free((*watch)->places);
    free(*watch);
    *watch = NULL;
}

mm_status mm_watch_poll(mm_watch *w)
{
    if (mm_clock_s() - w->probed_s < probe_s)
        return MM_OK;
    return take_notes(w, COMPUTING);
}

/* ---- waiting ------------------------------------------------------------- */

static presence presence_of(const mm_watch_state *state)
{
    return state->is_own_ready ? READY : UNREADY;
}

/** Another rank has come to a verdict, and ends the job if it can. */
static mm_status fail_silently(mm_watch *w)
{
    MM_TRY(take_notes_for(w, 2 * longest_grace_s, READY));
    return mm_fail(MM_E_COMM, "rank %d has given up", w->speaker);
}

/** Look, and exchange notes, for `limit_s` of this rank's own time, or until
 * what is waited for has come. */
static mm_status wait_for(mm_watch *w, double limit_s, mm_watch_look *look,
                          void *context, mm_watch_state *state)
{
    double waited_s = 0, last_s = mm_clock_s();
    while (limit_s == 0 || waited_s < limit_s) {
        *state = (mm_watch_state){.is_own_ready = true};
        MM_TRY(look(context, state));
        if (state->is_done)
            return MM_OK;
        double now_s = mm_clock_s();
        waited_s += fmin(now_s - last_s, longest_tick_s);
        last_s = now_s;
        if (now_s - w->probed_s > probe_s)
            MM_TRY(take_notes(w, presence_of(state)));
        if (w->speaker >= 0)
            return fail_silently(w);
        sched_yield();
    }
    return MM_OK;
}

/** "rank 3 (host a, process 17), rank 5 (...) and 2 more". */
static void name_ranks(const mm_watch *w, presence what, char *text,
                       size_t n_chars)
{
    enum { MOST_NAMED = 4 };
    int n = 0, n_all = count(w, what);
    size_t used = 0;
    for (int rank = 0; rank < w->comm->n_ranks && n < MOST_NAMED; rank++)
        if (w->heard[rank] == what)
            used += (size_t)snprintf(
                text + used, n_chars - used,
                "%srank %d (host %s, process %lld)", n++ ? ", " : "", rank,
                w->places[rank].host, (long long)w->places[rank].pid);
    if (n_all > n)
        snprintf(text + used, n_chars - used, " and %d more", n_all - n);
}

/**
 * One rank is to speak: the first to come to a verdict, the lower one of two.
 * The others still answer, and fail only if that one cannot end the job.
 */
static mm_status let_one_speak(mm_watch *w)
{
    if (w->speaker < 0) {
        MM_TRY(tell_all(w, (note){.kind = VERDICT, .presence = READY}));
        MM_TRY(take_notes_for(w, 10 * probe_s, READY));
    }
    return w->speaker >= 0 && w->speaker < w->comm->rank ? fail_silently(w)
                                                         : MM_OK;
}

static mm_status fail_naming(mm_watch *w, presence who, const char *what,
                             double waited_s)
{
    char names[640] = "";
    name_ranks(w, who, names, sizeof names);
    MM_TRY(let_one_speak(w));
    return mm_fail(MM_E_COMM,
                   "%s: %s, while others have waited %.0f s (--rank-timeout); "
                   "the job is ended",
                   names, what, waited_s);
}

/** The roll has been called: is there any use in waiting on? */
static mm_status judge(mm_watch *w, bool is_last_try, double waited_s)
{
    if (count(w, MISSING) > 0)
        return fail_naming(w, MISSING, "stuck or dead", waited_s);
    if (!is_last_try || count(w, COMPUTING) > 0)
        return MM_OK;
    if (count(w, UNREADY) > 0)
        return fail_naming(w, UNREADY, "its device does not finish", waited_s);
    return fail_naming(w, READY, "nothing moves between them", waited_s);
}

/** What failed here may come of a rank that is gone: then it is named too. */
static mm_status blame(mm_watch *w, mm_status st)
{
    char why[1024];
    if (st != MM_E_COMM || w->limit_s == 0 || w->speaker >= 0)
        return st;
    snprintf(why, sizeof why, "%s", mm_fail_message());
    MM_TRY(call_roll(w, READY));
    MM_TRY(take_notes_for(w, w->grace_s, READY));
    char names[640] = "";
    name_ranks(w, MISSING, names, sizeof names);
    if (!*names)
        return mm_fail(st, "rank %d: %s", w->comm->rank, why);
    MM_TRY(let_one_speak(w));
    return mm_fail(st, "%s: stuck or dead (rank %d says: %s)", names,
                   w->comm->rank, why);
}

mm_status mm_watch_wait(mm_watch *w, mm_watch_look *look, void *context)
{
    mm_watch_state state;
    double limit_s = w->limit_s, waited_s = 0;
    for (int n_tries = 0;; n_tries++) {
        mm_status st = wait_for(w, limit_s, look, context, &state);
        if (st == MM_OK && state.is_done)
            return MM_OK;
        if (st == MM_OK)
            st = call_roll(w, presence_of(&state));
        if (st == MM_OK)
            st = wait_for(w, w->grace_s, look, context, &state);
        if (st != MM_OK)
            return blame(w, st);
        if (state.is_done)
            return MM_OK;
        waited_s += limit_s + w->grace_s;
        MM_TRY(judge(w, n_tries > 0, waited_s));
        /* Everyone is there: what was late comes soon, or never. */
        limit_s = count(w, COMPUTING) > 0 ? w->limit_s : w->grace_s;
    }
}

static mm_status look_at_request(void *context, mm_watch_state *state)
{
    int is_over;
    MM_TRY(MM_MPI(MPI_Test(context, &is_over, MPI_STATUS_IGNORE)));
    state->is_done = is_over;
    return MM_OK;
}

mm_status mm_watch_sum_double(mm_watch *w, double *values, int64_t n)
{
    MPI_Request request;
    MM_ASSERT(n <= INT32_MAX);
    MM_TRY(MM_MPI(MPI_Iallreduce(MPI_IN_PLACE, values, (int)n, MPI_DOUBLE,
                                 MPI_SUM, w->comm->world, &request)));
    return mm_watch_wait(w, look_at_request, &request);
}
