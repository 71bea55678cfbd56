/* Comparing collective calls between ranks (comm/check_same.h). */

#include "comm/check_same.h"

#include "comm/mpi/mpi_comm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** An argument: its hash is compared, its text is for people. */
typedef struct arg_record {
    char name[40];
    char text[56];
    uint64_t hash;
} arg_record;

/** A call. Not a byte of it is left unset. */
typedef struct call_record {
    char function[56];
    int64_t n_args;
    arg_record args[MM_SAME_MOST];
} call_record;

struct mm_check_same {
    MPI_Comm calls;
    call_record mine, all[]; /* [n_ranks]; MPI may write there after a failure,
                                which a rank's stack might not outlast */
};

mm_status mm_check_same_create(mm_comm *comm)
{
    if (comm->n_ranks == 1)
        return MM_OK;
    mm_check_same *c =
        calloc(1, sizeof *c + (size_t)comm->n_ranks * sizeof *c->all);
    if (!c)
        return mm_fail(MM_E_MEMORY, "no memory to compare collective calls");
    comm->check = c;
    return MM_MPI(MPI_Comm_dup(comm->world, &c->calls));
}

void mm_check_same_destroy(mm_comm *comm)
{
    if (comm->check)
        MPI_Comm_free(&comm->check->calls);
    free(comm->check);
    comm->check = NULL;
}

/** FNV-1a, 64 bits. */
static uint64_t hash_bytes(const void *bytes, size_t n)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static void fill_arg(arg_record *r, const mm_same *arg)
{
    const size_t n_chars = sizeof r->text;
    snprintf(r->name, sizeof r->name, "%s", arg->name);
    switch (arg->kind) {
    case MM_SAME_IS_INT:
        r->hash = (uint64_t)arg->integer;
        snprintf(r->text, n_chars, "%" PRId64, arg->integer);
        break;
    case MM_SAME_IS_REAL:
        memcpy(&r->hash, &arg->real, sizeof r->hash);
        snprintf(r->text, n_chars, "%.17g", arg->real);
        break;
    case MM_SAME_IS_TEXT:
        if (arg->bytes) {
            r->hash = hash_bytes(arg->bytes, strlen(arg->bytes));
            snprintf(r->text, n_chars, "'%.50s'", (const char *)arg->bytes);
        } else {
            snprintf(r->text, n_chars, "NULL");
        }
        break;
    case MM_SAME_IS_BYTES:
        r->hash = hash_bytes(arg->bytes, (size_t)arg->n_bytes);
        snprintf(r->text, n_chars, "%" PRId64 " bytes with hash %016" PRIx64,
                 arg->n_bytes, r->hash);
    }
}

static void fill(call_record *r, const mm_same_call *call, const mm_same *args,
                 size_t n_args)
{
    memset(r, 0, sizeof *r);
    MM_ASSERT(n_args <= MM_SAME_MOST);
    snprintf(r->function, sizeof r->function, "%s", call->function);
    r->n_args = (int64_t)n_args;
    for (size_t i = 0; i < n_args; i++)
        fill_arg(&r->args[i], &args[i]);
}

/** How rank `rank` differs from rank 0: in the function, or in an argument. */
static void describe(const call_record *all, int rank, char *text,
                     size_t n_chars)
{
    const call_record *a = &all[0], *b = &all[rank];
    int64_t i = 0;
    if (strcmp(a->function, b->function) != 0) {
        snprintf(text, n_chars,
                 "ranks call different collectives: %s on rank 0, %s on rank "
                 "%d",
                 a->function, b->function, rank);
        return;
    }
    while (i + 1 < a->n_args &&
           memcmp(&a->args[i], &b->args[i], sizeof a->args[i]) == 0)
        i++;
    snprintf(text, n_chars,
             "%s: %s must be the same on every rank: %s on rank 0, %s on rank "
             "%d",
             a->function, a->args[i].name, a->args[i].text, b->args[i].text,
             rank);
}

/** Rank 0 says what differs; its end is the others', by the launcher. */
static void compare(const mm_comm *comm, const mm_same_call *call)
{
    const call_record *all = comm->check->all;
    char text[512];
    int rank = 1;
    while (rank < comm->n_ranks &&
           memcmp(&all[0], &all[rank], sizeof *all) == 0)
        rank++;
    if (rank == comm->n_ranks)
        return;
    if (comm->rank != 0) {
        sleep(10);
        abort();
    }
    describe(all, rank, text, sizeof text);
    mm_assert_failed(text, call->file, call->line);
}

mm_status mm_comm_check_same(mm_comm *comm, const mm_same_call *call,
                             const mm_same *args, size_t n_args)
{
    if (!comm || !comm->check)
        return MM_OK;
    mm_check_same *c = comm->check;
    MPI_Request request;
    fill(&c->mine, call, args, n_args);
    MM_TRY(MM_MPI_WAIT(comm, &request,
                       MPI_Iallgather(&c->mine, sizeof c->mine, MPI_BYTE,
                                      c->all, sizeof *c->all, MPI_BYTE,
                                      c->calls, &request)));
    compare(comm, call);
    return MM_OK;
}
