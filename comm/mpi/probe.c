/* Liveness probes between ranks, and what their replies say. */

#include "comm/mpi/probe.h"

#include "src/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TAG = 7 };

/** A reply repeats its probe's number. A report's announcement says that its
 * sender is about to end the job. */
typedef enum message_kind { PROBE, REPLY, REPORT } message_kind;

/** Where a rank is, for people. */
typedef struct location {
    char host[48];
    int64_t pid;
} location;

typedef struct message {
    int64_t number;
    int32_t kind;
    int32_t state;
    int64_t n_waits; /* that its sender has behind it */
    location from;
} message;

/** A message under way: MPI may read it until the request is done. */
typedef struct sending {
    struct sending *next;
    MPI_Request request;
    message what;
} sending;

/** What is known of a rank since it was first probed for a wait. */
typedef struct observation {
    mm_rank_state state; /* the last one */
    int n_replies;
    int64_t n_waits; /* with the first reply */
    bool progresses; /* it has computed, or ended a wait, since */
} observation;

struct mm_probe {
    mm_comm *comm;
    MPI_Request receipt; /* of the next message */
    message incoming;
    location mine;
    location *locations;   /* [n_ranks] of those that have sent something */
    observation *observed; /* [n_ranks] */
    sending *outbox;       /* a list */
    double served_s;
    int64_t n_probes, first_probe; /* so far; of mm_probe_start */
    int64_t n_waits;               /* that have ended */
    int reporter;
};

static mm_status drop_sent(mm_probe *p)
{
    for (sending **at = &p->outbox; *at;) {
        sending *one = *at;
        int has_left = 0;
        MM_TRY(MM_MPI(MPI_Test(&one->request, &has_left, MPI_STATUS_IGNORE)));
        if (has_left) {
            *at = one->next;
            free(one);
        } else {
            at = &one->next;
        }
    }
    return MM_OK;
}

/** Nothing waits for it to leave: it may be for a rank that never takes it. */
static mm_status send_to(mm_probe *p, int rank, message what)
{
    MM_TRY(drop_sent(p));
    sending *one = calloc(1, sizeof *one);
    if (!one)
        return mm_fail(MM_E_MEMORY, "no memory to probe rank %d", rank);
    one->what = what;
    one->what.from = p->mine;
    one->what.n_waits = p->n_waits;
    mm_status st = MM_MPI(MPI_Isend(&one->what, sizeof one->what, MPI_BYTE,
                                    rank, TAG, p->comm->probes, &one->request));
    if (st != MM_OK) {
        free(one);
        return st;
    }
    one->next = p->outbox;
    p->outbox = one;
    return MM_OK;
}

static mm_status post_receive(mm_probe *p)
{
    return MM_MPI(MPI_Irecv(&p->incoming, sizeof p->incoming, MPI_BYTE,
                            MPI_ANY_SOURCE, TAG, p->comm->probes, &p->receipt));
}

static bool is_probed(const mm_probe *p, int rank)
{
    return rank != p->comm->rank &&
           (mm_probe_is_coordinator(p) || rank < MM_N_COORDINATORS);
}

static mm_status send_all(mm_probe *p, message what)
{
    for (int rank = 0; rank < p->comm->n_ranks; rank++)
        if (is_probed(p, rank))
            MM_TRY(send_to(p, rank, what));
    return MM_OK;
}

mm_status mm_probe_create(mm_comm *comm, mm_probe **probe)
{
    size_t n_ranks = (size_t)comm->n_ranks;
    mm_probe *p = *probe = calloc(1, sizeof *p);
    if (p) {
        p->comm = comm;
        p->reporter = -1;
        p->receipt = MPI_REQUEST_NULL;
        p->locations = calloc(n_ranks, sizeof *p->locations);
        p->observed = calloc(n_ranks, sizeof *p->observed);
    }
    if (!p || !p->locations || !p->observed) {
        mm_probe_destroy(probe);
        return mm_fail(MM_E_MEMORY, "no memory to watch %d ranks",
                       comm->n_ranks);
    }
    p->mine.pid = getpid();
    (void)gethostname(p->mine.host, sizeof p->mine.host - 1);
    return post_receive(p);
}

void mm_probe_destroy(mm_probe **probe)
{
    mm_probe *p = *probe;
    if (!p)
        return;
    if (p->receipt != MPI_REQUEST_NULL) {
        MPI_Cancel(&p->receipt);
        MPI_Wait(&p->receipt, MPI_STATUS_IGNORE);
    }
    /* What has not left by now is MPI's: it may still be read. */
    (void)drop_sent(p);
    free(p->locations);
    free(p->observed);
    free(p);
    *probe = NULL;
}

bool mm_probe_is_coordinator(const mm_probe *p)
{
    return p->comm->rank < MM_N_COORDINATORS;
}

double mm_probe_served_s(const mm_probe *p)
{
    return p->served_s;
}

static void observe(mm_probe *p, int rank, const message *what)
{
    observation *seen = &p->observed[rank];
    p->locations[rank] = what->from;
    if (what->kind == REPORT && (p->reporter < 0 || rank < p->reporter))
        p->reporter = rank;
    if (what->kind == REPLY && what->number < p->first_probe)
        return; /* late: to an earlier probe */
    seen->state = (mm_rank_state)what->state;
    if (what->kind == REPLY && seen->n_replies++ == 0)
        seen->n_waits = what->n_waits;
    seen->progresses |= what->state == MM_RANK_BUSY ||
                        (seen->n_replies > 0 && what->n_waits != seen->n_waits);
}

mm_status mm_probe_serve(mm_probe *p, mm_rank_state mine)
{
    p->served_s = mm_clock_s();
    for (;;) {
        int there = 0;
        MPI_Status from;
        MM_TRY(MM_MPI(MPI_Test(&p->receipt, &there, &from)));
        if (!there)
            return MM_OK;
        const message what = p->incoming;
        const int rank = from.MPI_SOURCE;
        MM_TRY(post_receive(p));
        observe(p, rank, &what);
        if (what.kind == PROBE)
            MM_TRY(send_to(p, rank,
                           (message){.number = what.number,
                                     .kind = REPLY,
                                     .state = (int32_t)mine}));
    }
}

static mm_status send_probes(mm_probe *p, mm_rank_state mine)
{
    p->observed[p->comm->rank].state = mine;
    return send_all(p, (message){.number = ++p->n_probes,
                                 .kind = PROBE,
                                 .state = (int32_t)mine});
}

mm_status mm_probe_start(mm_probe *p, mm_rank_state mine)
{
    for (int rank = 0; rank < p->comm->n_ranks; rank++)
        p->observed[rank] = (observation){.state = MM_RANK_SILENT};
    p->locations[p->comm->rank] = p->mine;
    p->first_probe = p->n_probes + 1;
    return send_probes(p, mine);
}

mm_status mm_probe_repeat(mm_probe *p, mm_rank_state mine)
{
    return send_probes(p, mine);
}

void mm_probe_count_wait(mm_probe *p)
{
    p->n_waits++;
}

mm_status mm_probe_announce_report(mm_probe *p)
{
    return send_all(p, (message){.kind = REPORT, .state = MM_RANK_WAITING});
}

int mm_probe_reporter(const mm_probe *p)
{
    return p->reporter;
}

/** Whether a rank is this one or one that it probes, and in a state. */
static bool is_counted(const mm_probe *p, int rank, mm_rank_state state)
{
    return p->observed[rank].state == state &&
           (rank == p->comm->rank || is_probed(p, rank));
}

int mm_probe_count(const mm_probe *p, mm_rank_state state)
{
    int n = 0;
    for (int rank = 0; rank < p->comm->n_ranks; rank++)
        n += is_counted(p, rank, state);
    return n;
}

int mm_probe_lowest(const mm_probe *p, mm_rank_state state)
{
    for (int rank = 0; rank < p->comm->n_ranks; rank++)
        if (is_counted(p, rank, state))
            return rank;
    return -1;
}

bool mm_probe_is_deadlock(const mm_probe *p)
{
    for (int rank = 0; rank < p->comm->n_ranks; rank++)
        if (is_probed(p, rank) &&
            (p->observed[rank].n_replies < 2 || p->observed[rank].progresses))
            return false;
    return true;
}

static int print_name(const mm_probe *p, int rank, char *text, size_t n_chars)
{
    const location *at = &p->locations[rank];
    if (at->pid == 0) /* it has never sent anything */
        return snprintf(text, n_chars, "rank %d", rank);
    return snprintf(text, n_chars, "rank %d (host %s, process %lld)", rank,
                    at->host, (long long)at->pid);
}

void mm_probe_names(const mm_probe *p, mm_rank_state state, char *text,
                    size_t n_chars)
{
    enum { MOST_NAMED = 4 };
    int n = 0, n_all = mm_probe_count(p, state);
    size_t used = 0;
    text[0] = '\0';
    for (int rank = 0; rank < p->comm->n_ranks && n < MOST_NAMED; rank++) {
        if (!is_counted(p, rank, state))
            continue;
        if (n++)
            used += (size_t)snprintf(text + used, n_chars - used, ", ");
        used += (size_t)print_name(p, rank, text + used, n_chars - used);
    }
    if (n_all > n)
        snprintf(text + used, n_chars - used, " and %d more", n_all - n);
}
