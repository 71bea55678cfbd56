#include "comm/comm.h"
#include "comm/mpi/alone.h"
#include "comm/mpi/mpi_comm.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* MPI counts are int, and a wait for what moves slowly must not look like one
 * for what does not: larger messages go in pieces. */
enum { PIECE = 1 << 26 };

mm_status mm_mpi_failed(int code, const char *call)
{
    if (code == MPI_SUCCESS)
        return MM_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return mm_fail(MM_E_COMM, "%.60s: %.300s", call, text);
}

static int int_piece(int64_t left)
{
    return (int)(left < PIECE ? left : PIECE);
}

/** Sum over this process's cores of 1 / (ranks of the node that may run there),
 * so that bound and unbound ranks alike get what is theirs. */
static mm_status share_cores(mm_comm *comm, MPI_Comm node)
{
    cpu_set_t mine;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine))
        return mm_fail_errno("cannot read the processor affinity");
    cpu_set_t *all = calloc((size_t)comm->n_node_ranks, sizeof *all);
    if (!all)
        return mm_fail(MM_E_MEMORY, "no memory for processor masks");
    mm_status st = MM_MPI(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all,
                                        sizeof mine, MPI_BYTE, node));
    double share = 0;
    for (size_t core = 0; st == MM_OK && core < CPU_SETSIZE; core++) {
        if (!CPU_ISSET(core, &mine))
            continue;
        int n_sharing = 0;
        for (int i = 0; i < comm->n_node_ranks; i++)
            n_sharing += CPU_ISSET(core, &all[i]) != 0;
        share += 1.0 / n_sharing;
    }
    free(all);
    comm->n_cores = CPU_COUNT(&mine);
    comm->n_host_cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    comm->n_threads = share + 1e-9 < 1 ? 1 : (int)(share + 1e-9);
    const char *chosen = getenv("OMP_NUM_THREADS");
    if (chosen && atoi(chosen) > 0)
        comm->n_threads = atoi(chosen);
    return st;
}

static mm_status join(mm_comm *comm, int *argc, char ***argv)
{
    int provided;
    mm_mpi_prepare_alone();
    MM_TRY(
        MM_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided)));
    comm->takes_turns = provided >= MPI_THREAD_SERIALIZED;
    MM_TRY(MM_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm->world)));
    MM_TRY(MM_MPI(MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN)));
    MM_TRY(MM_MPI(MPI_Comm_rank(comm->world, &comm->rank)));
    MM_TRY(MM_MPI(MPI_Comm_size(comm->world, &comm->n_ranks)));
    if (comm->n_ranks > 1)
        MM_TRY(MM_MPI(MPI_Comm_dup(comm->world, &comm->notes)));
    MPI_Comm node;
    MM_TRY(MM_MPI(MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, 0,
                                      MPI_INFO_NULL, &node)));
    MM_TRY(MM_MPI(MPI_Comm_rank(node, &comm->node_rank)));
    MM_TRY(MM_MPI(MPI_Comm_size(node, &comm->n_node_ranks)));
    comm->node = comm->rank;
    MM_TRY(MM_MPI(MPI_Bcast(&comm->node, 1, MPI_INT, 0, node)));
    MM_TRY(share_cores(comm, node));
    return MM_MPI(MPI_Comm_free(&node));
}

mm_status mm_comm_create(int *argc, char ***argv, mm_comm **comm)
{
    mm_comm *c = calloc(1, sizeof *c);
    if (!c)
        return mm_fail(MM_E_MEMORY, "no memory for a communicator");
    c->notes = MPI_COMM_NULL;
    mm_status st = join(c, argc, argv);
    if (st != MM_OK) {
        free(c);
        return st;
    }
    *comm = c;
    return MM_OK;
}

void mm_comm_destroy(mm_comm **comm)
{
    if (!*comm)
        return;
    mm_watch_destroy(&(*comm)->watch);
    if ((*comm)->notes != MPI_COMM_NULL)
        MPI_Comm_free(&(*comm)->notes);
    MPI_Comm_free(&(*comm)->world);
    MPI_Finalize();
    free(*comm);
    *comm = NULL;
}

int mm_comm_rank(const mm_comm *comm)
{
    return comm->rank;
}

int mm_comm_n_ranks(const mm_comm *comm)
{
    return comm->n_ranks;
}

int mm_comm_node_rank(const mm_comm *comm)
{
    return comm->node_rank;
}

int mm_comm_n_node_ranks(const mm_comm *comm)
{
    return comm->n_node_ranks;
}

int mm_comm_node(const mm_comm *comm)
{
    return comm->node;
}

int mm_comm_n_threads(const mm_comm *comm)
{
    return comm->n_threads;
}

int mm_comm_n_cores(const mm_comm *comm)
{
    return comm->n_cores;
}

int mm_comm_n_host_cores(const mm_comm *comm)
{
    return comm->n_host_cores;
}

bool mm_comm_stderr_is_terminal(void)
{
    if (isatty(STDERR_FILENO))
        return true;
    /* mpirun gives its ranks a pipe and copies it to its own stderr. */
    if (!getenv("OMPI_COMM_WORLD_RANK"))
        return false;
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/fd/2", (long)getppid());
    int fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    bool terminal = fd >= 0 && isatty(fd);
    if (fd >= 0)
        close(fd);
    return terminal;
}

void mm_comm_set_give_up(mm_comm *comm, void (*give_up)(void *context),
                         void *context)
{
    comm->give_up = give_up;
    comm->give_up_context = context;
}

_Noreturn void mm_comm_abort(mm_comm *comm, int exit_code)
{
    /* Where nothing answers any more, end this process anyway: its launcher
     * ends the others then. Libraries get longer than MPI, which has little to
     * do. */
    alarm(10);
    mm_comm_begin_compute(comm);
    if (comm->give_up)
        comm->give_up(comm->give_up_context);
    alarm(3);
    MPI_Abort(comm->world, exit_code);
    _Exit(exit_code);
}

mm_status mm_comm_agree(mm_comm *comm, mm_status status)
{
    if (status == MM_E_COMM)
        return status;
    /* The lowest failed rank, and how many failed, in one reduction each way:
     * the maximum of n_ranks - rank names the lowest. */
    int mine[2] = {status ? comm->n_ranks - comm->rank : 0,
                   status ? comm->rank + 1 : comm->n_ranks + 1};
    int worst[2];
    MPI_Request request;
    MM_TRY(MM_MPI_WAIT(comm, &request,
                       MPI_Iallreduce(mine, worst, 2, MPI_INT, MPI_MAX,
                                      comm->world, &request)));
    if (worst[0] == 0)
        return MM_OK;
    int root = comm->n_ranks - worst[0];
    bool all_failed = worst[1] != comm->n_ranks + 1;

    struct {
        mm_status status;
        char text[2048];
    } note = {.status = status};
    if (comm->rank == root)
        strncpy(note.text, mm_fail_message(), sizeof note.text - 1);
    MM_TRY(mm_comm_broadcast(comm, &note, sizeof note, root));
    if (all_failed)
        return mm_fail(note.status, "%s", note.text);
    return mm_fail(note.status, "rank %d: %.2000s", root, note.text);
}

mm_status mm_comm_barrier(mm_comm *comm)
{
    MPI_Request request;
    return MM_MPI_WAIT(comm, &request, MPI_Ibarrier(comm->world, &request));
}

mm_status mm_comm_broadcast(mm_comm *comm, void *data, int64_t n_bytes,
                            int root)
{
    for (char *at = data; n_bytes > 0;) {
        MPI_Request request;
        int piece = int_piece(n_bytes);
        MM_TRY(MM_MPI_WAIT(
            comm, &request,
            MPI_Ibcast(at, piece, MPI_BYTE, root, comm->world, &request)));
        at += piece;
        n_bytes -= piece;
    }
    return MM_OK;
}

mm_status mm_comm_allgather(mm_comm *comm, const void *send, int64_t n_bytes,
                            void *recv)
{
    if (n_bytes > INT_MAX)
        return mm_fail(MM_E_ARG, "allgather of %lld bytes a rank",
                       (long long)n_bytes);
    MPI_Request request;
    return MM_MPI_WAIT(comm, &request,
                       MPI_Iallgather(send, (int)n_bytes, MPI_BYTE, recv,
                                      (int)n_bytes, MPI_BYTE, comm->world,
                                      &request));
}

static mm_status receive(mm_comm *comm, char *at, int64_t n_bytes, int from)
{
    while (n_bytes > 0) {
        MPI_Request request;
        int piece = int_piece(n_bytes);
        MM_TRY(MM_MPI_WAIT(
            comm, &request,
            MPI_Irecv(at, piece, MPI_BYTE, from, 0, comm->world, &request)));
        at += piece;
        n_bytes -= piece;
    }
    return MM_OK;
}

static mm_status transmit(mm_comm *comm, const char *at, int64_t n_bytes,
                          int to)
{
    while (n_bytes > 0) {
        MPI_Request request;
        int piece = int_piece(n_bytes);
        MM_TRY(MM_MPI_WAIT(
            comm, &request,
            MPI_Isend(at, piece, MPI_BYTE, to, 0, comm->world, &request)));
        at += piece;
        n_bytes -= piece;
    }
    return MM_OK;
}

mm_status mm_comm_collect(mm_comm *comm, const void *send, int64_t n_bytes,
                          void *recv)
{
    if (comm->rank != 0) {
        MM_TRY(transmit(comm, (const char *)&n_bytes, sizeof n_bytes, 0));
        return transmit(comm, send, n_bytes, 0);
    }
    char *at = recv;
    if (n_bytes > 0)
        memcpy(at, send, (size_t)n_bytes);
    at += n_bytes;
    for (int from = 1; from < comm->n_ranks; from++) {
        int64_t theirs;
        MM_TRY(receive(comm, (char *)&theirs, sizeof theirs, from));
        MM_TRY(receive(comm, at, theirs, from));
        at += theirs;
    }
    return MM_OK;
}

static mm_status sum(mm_comm *comm, char *values, int64_t n, int elem_bytes,
                     MPI_Datatype type)
{
    const int most = PIECE / elem_bytes;
    for (int64_t at = 0; at < n; at += most) {
        MPI_Request request;
        int piece = n - at < most ? (int)(n - at) : most;
        MM_TRY(MM_MPI_WAIT(comm, &request,
                           MPI_Iallreduce(MPI_IN_PLACE,
                                          values + at * elem_bytes, piece, type,
                                          MPI_SUM, comm->world, &request)));
    }
    return MM_OK;
}

mm_status mm_comm_sum_double(mm_comm *comm, double *values, int64_t n)
{
    return sum(comm, (char *)values, n, sizeof *values, MPI_DOUBLE);
}

mm_status mm_comm_sum_int64(mm_comm *comm, int64_t *values, int64_t n)
{
    return sum(comm, (char *)values, n, sizeof *values, MPI_INT64_T);
}
