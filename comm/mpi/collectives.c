/* The collectives of comm/comm.h, by MPI's non-blocking ones. */

#define MM_DEFINES_AGREE
#include "comm/check_same.h"
#include "comm/comm.h"
#include "comm/mpi/mpi_comm.h"

#include <limits.h>
#include <string.h>

/* MPI counts are int, and a wait for what moves slowly must not look like one
 * for what does not: larger messages go in pieces. */
enum { PIECE = 1 << 26 };

static int int_piece(int64_t left)
{
    return (int)(left < PIECE ? left : PIECE);
}

mm_status mm_comm_agree(mm_comm *comm, mm_status status)
{
    if (status == MM_E_COMM)
        return status;
    MM_TRY(MM_CHECK_CALL(comm));
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
    } failure = {.status = status};
    if (comm->rank == root)
        strncpy(failure.text, mm_fail_message(), sizeof failure.text - 1);
    MM_TRY(mm_comm_broadcast(comm, &failure, sizeof failure, root));
    if (all_failed)
        return mm_fail(failure.status, "%s", failure.text);
    return mm_fail(failure.status, "rank %d: %.2000s", root, failure.text);
}

mm_status mm_comm_barrier(mm_comm *comm)
{
    MM_TRY(MM_CHECK_CALL(comm));
    MPI_Request request;
    return MM_MPI_WAIT(comm, &request, MPI_Ibarrier(comm->world, &request));
}

mm_status mm_comm_broadcast(mm_comm *comm, void *data, int64_t n_bytes,
                            int root)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_INT(n_bytes), MM_SAME_INT(root)));
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
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_INT(n_bytes)));
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
    MM_TRY(MM_CHECK_CALL(comm));
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
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_INT(n)));
    return sum(comm, (char *)values, n, sizeof *values, MPI_DOUBLE);
}

mm_status mm_comm_sum_int64(mm_comm *comm, int64_t *values, int64_t n)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_INT(n)));
    return sum(comm, (char *)values, n, sizeof *values, MPI_INT64_T);
}
