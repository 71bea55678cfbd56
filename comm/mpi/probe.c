#include "comm/mpi/roll.h"

#include "src/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TAG = 7 };

/** Who asks wants an answer, which repeats the question's number. A verdict
 * says that its sender is about to end the job. */
typedef enum note_kind { QUESTION, ANSWER, VERDICT } note_kind;

/** Where a rank is, for people. */
typedef struct whereabouts {
    char host[48];
    int64_t pid;
} whereabouts;

typedef struct note {
    int64_t number;
    int32_t kind;
    int32_t presence;
    int64_t n_passed; /* waits that its sender has behind it */
    whereabouts from;
} note;

/** A note that is leaving: MPI may read it until the request is done. */
typedef struct sending {
    struct sending *next;
    MPI_Request request;
    note what;
} sending;

/** What a rank has said since the roll was called. */
typedef struct word {
    mm_presence presence; /* the last time */
    int n_answers;
    int64_t n_passed; /* with the first answer */
    bool moves;       /* it has computed, or passed a wait, since */
} word;

struct mm_roll {
    mm_comm *comm;
    MPI_Request receipt; /* of the next note */
    note incoming;
    whereabouts mine;
    whereabouts *places; /* [n_ranks] of those that have said something */
    word *heard;         /* [n_ranks] */
    sending *outbox;     /* a list */
    double looked_s;
    int64_t n_questions, first_question; /* asked so far; of the last call */
    int64_t n_passed;
    int speaker;
};

static mm_status drop_sent(mm_roll *r)
{
    for (sending **at = &r->outbox; *at;) {
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

/** Nobody waits for it to leave: it may be for a rank that never takes it. */
static mm_status tell(mm_roll *r, int rank, note what)
{
    MM_TRY(drop_sent(r));
    sending *one = calloc(1, sizeof *one);
    if (!one)
        return mm_fail(MM_E_MEMORY, "no memory to ask rank %d", rank);
    one->what = what;
    one->what.from = r->mine;
    one->what.n_passed = r->n_passed;
    mm_status st = MM_MPI(MPI_Isend(&one->what, sizeof one->what, MPI_BYTE,
                                    rank, TAG, r->comm->notes, &one->request));
    if (st != MM_OK) {
        free(one);
        return st;
    }
    one->next = r->outbox;
    r->outbox = one;
    return MM_OK;
}

static mm_status expect(mm_roll *r)
{
    return MM_MPI(MPI_Irecv(&r->incoming, sizeof r->incoming, MPI_BYTE,
                            MPI_ANY_SOURCE, TAG, r->comm->notes, &r->receipt));
}

static bool is_asked(const mm_roll *r, int rank)
{
    return rank != r->comm->rank &&
           (mm_roll_is_caller(r) || rank < MM_ROLL_CALLERS);
}

static mm_status tell_all(mm_roll *r, note what)
{
    for (int rank = 0; rank < r->comm->n_ranks; rank++)
        if (is_asked(r, rank))
            MM_TRY(tell(r, rank, what));
    return MM_OK;
}

mm_status mm_roll_create(mm_comm *comm, mm_roll **roll)
{
    size_t n_ranks = (size_t)comm->n_ranks;
    mm_roll *r = *roll = calloc(1, sizeof *r);
    if (r) {
        r->comm = comm;
        r->speaker = -1;
        r->receipt = MPI_REQUEST_NULL;
        r->places = calloc(n_ranks, sizeof *r->places);
        r->heard = calloc(n_ranks, sizeof *r->heard);
    }
    if (!r || !r->places || !r->heard) {
        mm_roll_destroy(roll);
        return mm_fail(MM_E_MEMORY, "no memory to watch %d ranks",
                       comm->n_ranks);
    }
    r->mine.pid = getpid();
    (void)gethostname(r->mine.host, sizeof r->mine.host - 1);
    return expect(r);
}

void mm_roll_destroy(mm_roll **roll)
{
    mm_roll *r = *roll;
    if (!r)
        return;
    if (r->receipt != MPI_REQUEST_NULL) {
        MPI_Cancel(&r->receipt);
        MPI_Wait(&r->receipt, MPI_STATUS_IGNORE);
    }
    /* What has not left by now is MPI's: it may still be read. */
    (void)drop_sent(r);
    free(r->places);
    free(r->heard);
    free(r);
    *roll = NULL;
}

bool mm_roll_is_caller(const mm_roll *r)
{
    return r->comm->rank < MM_ROLL_CALLERS;
}

double mm_roll_looked_s(const mm_roll *r)
{
    return r->looked_s;
}

static void take_in(mm_roll *r, int rank, const note *what)
{
    word *heard = &r->heard[rank];
    r->places[rank] = what->from;
    if (what->kind == VERDICT && (r->speaker < 0 || rank < r->speaker))
        r->speaker = rank;
    if (what->kind == ANSWER && what->number < r->first_question)
        return; /* late: to an earlier call */
    heard->presence = (mm_presence)what->presence;
    if (what->kind == ANSWER && heard->n_answers++ == 0)
        heard->n_passed = what->n_passed;
    heard->moves |= what->presence == MM_COMPUTING ||
                    (heard->n_answers > 0 && what->n_passed != heard->n_passed);
}

mm_status mm_roll_look(mm_roll *r, mm_presence mine)
{
    r->looked_s = mm_clock_s();
    for (;;) {
        int there = 0;
        MPI_Status from;
        MM_TRY(MM_MPI(MPI_Test(&r->receipt, &there, &from)));
        if (!there)
            return MM_OK;
        const note what = r->incoming;
        const int rank = from.MPI_SOURCE;
        MM_TRY(expect(r));
        take_in(r, rank, &what);
        if (what.kind == QUESTION)
            MM_TRY(tell(r, rank,
                        (note){.number = what.number,
                               .kind = ANSWER,
                               .presence = (int32_t)mine}));
    }
}

static mm_status ask(mm_roll *r, mm_presence mine)
{
    r->heard[r->comm->rank].presence = mine;
    return tell_all(r, (note){.number = ++r->n_questions,
                              .kind = QUESTION,
                              .presence = (int32_t)mine});
}

mm_status mm_roll_call(mm_roll *r, mm_presence mine)
{
    for (int rank = 0; rank < r->comm->n_ranks; rank++)
        r->heard[rank] = (word){.presence = MM_MISSING};
    r->places[r->comm->rank] = r->mine;
    r->first_question = r->n_questions + 1;
    return ask(r, mine);
}

mm_status mm_roll_ask_again(mm_roll *r, mm_presence mine)
{
    return ask(r, mine);
}

void mm_roll_passed(mm_roll *r)
{
    r->n_passed++;
}

mm_status mm_roll_tell_verdict(mm_roll *r)
{
    return tell_all(r, (note){.kind = VERDICT, .presence = MM_READY});
}

int mm_roll_speaker(const mm_roll *r)
{
    return r->speaker;
}

/** Whether a rank belongs to the roll that this one calls, and said `what`. */
static bool is_counted(const mm_roll *r, int rank, mm_presence what)
{
    return r->heard[rank].presence == what &&
           (rank == r->comm->rank || is_asked(r, rank));
}

int mm_roll_count(const mm_roll *r, mm_presence what)
{
    int n = 0;
    for (int rank = 0; rank < r->comm->n_ranks; rank++)
        n += is_counted(r, rank, what);
    return n;
}

int mm_roll_lowest(const mm_roll *r, mm_presence what)
{
    for (int rank = 0; rank < r->comm->n_ranks; rank++)
        if (is_counted(r, rank, what))
            return rank;
    return -1;
}

bool mm_roll_stands_still(const mm_roll *r)
{
    for (int rank = 0; rank < r->comm->n_ranks; rank++)
        if (is_asked(r, rank) &&
            (r->heard[rank].n_answers < 2 || r->heard[rank].moves))
            return false;
    return true;
}

static int print_name(const mm_roll *r, int rank, char *text, size_t n_chars)
{
    const whereabouts *at = &r->places[rank];
    if (at->pid == 0) /* it has never said a word */
        return snprintf(text, n_chars, "rank %d", rank);
    return snprintf(text, n_chars, "rank %d (host %s, process %lld)", rank,
                    at->host, (long long)at->pid);
}

void mm_roll_names(const mm_roll *r, mm_presence what, char *text,
                   size_t n_chars)
{
    enum { MOST_NAMED = 4 };
    int n = 0, n_all = mm_roll_count(r, what);
    size_t used = 0;
    text[0] = '\0';
    for (int rank = 0; rank < r->comm->n_ranks && n < MOST_NAMED; rank++) {
        if (!is_counted(r, rank, what))
            continue;
        if (n++)
            used += (size_t)snprintf(text + used, n_chars - used, ", ");
        used += (size_t)print_name(r, rank, text + used, n_chars - used);
    }
    if (n_all > n)
        snprintf(text + used, n_chars - used, " and %d more", n_all - n);
}
