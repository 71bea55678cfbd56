/* Joining and leaving the job, its ranks, and their cores. */

#include "comm/comm.h"
#include "comm/check_same.h"
#include "comm/mpi/mpi_comm.h"
#include "comm/mpi/singleton.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
    mm_mpi_prepare_singleton();
    MM_TRY(
        MM_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided)));
    comm->is_serialized = provided >= MPI_THREAD_SERIALIZED;
    MM_TRY(MM_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm->world)));
    MM_TRY(MM_MPI(MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN)));
    MM_TRY(MM_MPI(MPI_Comm_rank(comm->world, &comm->rank)));
    MM_TRY(MM_MPI(MPI_Comm_size(comm->world, &comm->n_ranks)));
    if (comm->n_ranks > 1)
        MM_TRY(MM_MPI(MPI_Comm_dup(comm->world, &comm->probes)));
    MPI_Comm node;
    MM_TRY(MM_MPI(MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, 0,
                                      MPI_INFO_NULL, &node)));
    MM_TRY(MM_MPI(MPI_Comm_rank(node, &comm->node_rank)));
    MM_TRY(MM_MPI(MPI_Comm_size(node, &comm->n_node_ranks)));
    comm->node = comm->rank;
    MM_TRY(MM_MPI(MPI_Bcast(&comm->node, 1, MPI_INT, 0, node)));
    MM_TRY(share_cores(comm, node));
    MM_TRY(MM_MPI(MPI_Comm_free(&node)));
    return MAGMAX_CHECK_COLLECTIVES ? mm_check_same_create(comm) : MM_OK;
}

mm_status mm_comm_create(int *argc, char ***argv, mm_comm **comm)
{
    mm_comm *c = calloc(1, sizeof *c);
    if (!c)
        return mm_fail(MM_E_MEMORY, "no memory for a communicator");
    c->probes = MPI_COMM_NULL;
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
    if (!(*comm)->has_failed)
        (void)MM_CHECK_CALL(*comm);
    mm_watch_destroy(*comm);
    mm_check_same_destroy(*comm);
    if ((*comm)->probes != MPI_COMM_NULL)
        MPI_Comm_free(&(*comm)->probes);
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

void mm_comm_set_abort_hook(mm_comm *comm, void (*hook)(void *context),
                            void *context)
{
    comm->abort_hook = hook;
    comm->abort_context = context;
}

_Noreturn void mm_comm_abort(mm_comm *comm, int exit_code)
{
    /* Where nothing responds any more, end this process anyway: its launcher
     * ends the others then. Libraries get longer than MPI, which has little to
     * do. */
    alarm(10);
    mm_comm_begin_compute(comm);
    if (comm->abort_hook)
        comm->abort_hook(comm->abort_context);
    alarm(3);
    MPI_Abort(comm->world, exit_code);
    _Exit(exit_code);
}
