#ifndef MAGMAX_COMM_MPI_MPI_COMM_H
#define MAGMAX_COMM_MPI_MPI_COMM_H

#include "comm/comm.h"

#include <mpi.h>

struct mm_comm {
    MPI_Comm world;
    int rank, n_ranks;
    int node, node_rank, n_node_ranks;
    int n_threads, n_cores, n_host_cores;
};

/** Turn an MPI error code into MM_E_COMM with MPI's own text. */
mm_status mm_mpi_failed(int code, const char *call);

/** Evaluates to a status. */
#define MM_MPI(call) mm_mpi_failed((call), #call)

#endif
