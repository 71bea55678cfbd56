#ifndef MAGMAX_COMM_MPI_MPI_COMM_H
#define MAGMAX_COMM_MPI_MPI_COMM_H

#include "comm/watch.h"

#include <mpi.h>

typedef struct mm_watch mm_watch;

struct mm_comm {
    MPI_Comm world;
    MPI_Comm
        notes; /* the watch's, apart from what it watches; one rank: none */
    int rank, n_ranks;
    int node, node_rank, n_node_ranks;
    int n_threads, n_cores, n_host_cores;
    bool takes_turns; /* threads may, in calling MPI */
    mm_watch *watch;  /* NULL: waits are for ever */
    void (*give_up)(void *context);
    void *give_up_context;
};

/** Turn an MPI error code into MM_E_COMM with MPI's own text. */
mm_status mm_mpi_failed(int code, const char *call);

/** Evaluates to a status. */
#define MM_MPI(call) mm_mpi_failed((call), #call)

/** The second half of MM_MPI_WAIT. */
mm_status mm_mpi_finish(mm_comm *comm, mm_status begun, MPI_Request *request);

/** Start what gives `request`, wait for it as mm_comm_wait does; evaluates to a
 * status. */
#define MM_MPI_WAIT(comm, request, call) \
    (mm_comm_begin_compute(comm), mm_mpi_finish(comm, MM_MPI(call), request))

/** Before MPI ends. */
void mm_watch_destroy(mm_watch **watch);

#endif
