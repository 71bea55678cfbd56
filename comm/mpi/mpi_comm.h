#ifndef MAGMAX_COMM_MPI_MPI_COMM_H
#define MAGMAX_COMM_MPI_MPI_COMM_H

#include "comm/watch.h"

#include <mpi.h>

/*
 * The communicator, and calls of MPI that wait as comm/watch.h says; private to
 * comm/mpi. Of its files each calls those behind it:
 *
 *     comm.c             joins and leaves the job
 *     watch.c            starts and ends watching
 *     collectives.c      comm/comm.h's collectives
 *     check_same.c       whether ranks make the same calls
 *     wait.c             waits
 *     diagnosis.c        which rank holds the others up
 *     serve.c            whose turn it is to call MPI; replies meanwhile
 *     probe.c            messages of the liveness probe
 *     mpi_status.c       MPI's errors
 */

typedef struct mm_watch mm_watch;
typedef struct mm_check_same mm_check_same;

struct mm_comm {
    MPI_Comm world;
    MPI_Comm probes; /* liveness probes, apart from what they are about; one
                        rank: none */
    int rank, n_ranks;
    int node, node_rank, n_node_ranks;
    int n_threads, n_cores, n_host_cores;
    bool is_serialized;   /* several threads may call MPI, in turn */
    bool has_failed;      /* a wait has: only mm_comm_abort is left */
    mm_watch *watch;      /* NULL: waits have no limit */
    mm_check_same *check; /* NULL: calls are not compared */
    void (*abort_hook)(void *context);
    void *abort_context;
};

/** Turn an MPI error code into MM_E_COMM with MPI's own text. */
mm_status mm_mpi_failed(int code, const char *call);

/** Evaluates to a status. */
#define MM_MPI(call) mm_mpi_failed((call), #call)

/** The second half of MM_MPI_WAIT. Ranks: as mm_comm_wait. */
mm_status mm_mpi_finish(mm_comm *comm, mm_status begun, MPI_Request *request);

/** Start what gives `request`, wait for it as mm_comm_wait does; evaluates to a
 * status. */
#define MM_MPI_WAIT(comm, request, call) \
    (mm_comm_begin_compute(comm), mm_mpi_finish(comm, MM_MPI(call), request))

/** End watching, before MPI ends. Ranks: local. */
void mm_watch_destroy(mm_comm *comm);

/**
 * Compare collective calls from now on (comm/check_same.h).
 *
 * Memory   Sets comm->check, freed by mm_check_same_destroy.
 * Ranks    Collective, both.
 */
mm_status mm_check_same_create(mm_comm *comm);
void mm_check_same_destroy(mm_comm *comm);

#endif
