/* The module libmagmax_nccl.so: the only file that calls NCCL. */

#include "comm/nccl/nccl_table.h"

#include "src/base/module.h"

#include <nccl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct mm_nccl_comm {
    ncclComm_t nccl; /* NULL once it was aborted */
};

static mm_status check(ncclResult_t result, ncclComm_t comm, const char *what)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return MM_OK;
    if (result == ncclInvalidUsage)
        return mm_fail(MM_E_DEVICE,
                       "NCCL refuses %s: %s (%.300s); give every rank a GPU of "
                       "its own",
                       what, ncclGetErrorString(result),
                       ncclGetLastError(comm));
    return mm_fail(MM_E_COMM, "NCCL failed at %s: %s (%.300s)", what,
                   ncclGetErrorString(result), ncclGetLastError(comm));
}

static mm_status make_id(char id[MM_NCCL_ID_BYTES])
{
    ncclUniqueId made;
    _Static_assert(sizeof made == MM_NCCL_ID_BYTES, "the id's size");
    ncclResult_t result = ncclGetUniqueId(&made);
    memcpy(id, &made, sizeof made);
    if (result != ncclSuccess)
        return mm_fail(MM_E_DEVICE, "NCCL does not start: %s (%.300s)",
                       ncclGetErrorString(result), ncclGetLastError(NULL));
    return MM_OK;
}

static void abort_comm(mm_nccl_comm *comm)
{
    if (comm->nccl)
        (void)ncclCommAbort(comm->nccl);
    comm->nccl = NULL;
}

static mm_status create(const char id[MM_NCCL_ID_BYTES], int rank, int n_ranks,
                        mm_nccl_comm **comm)
{
    mm_nccl_comm *c = calloc(1, sizeof *c);
    if (!c)
        return mm_fail(MM_E_MEMORY, "no memory for a communicator");
    ncclUniqueId same;
    memcpy(&same, id, sizeof same);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    mm_status st =
        check(ncclCommInitRankConfig(&c->nccl, n_ranks, same, rank, &config),
              NULL, "joining GPUs");
    if (st != MM_OK) {
        abort_comm(c);
        free(c);
        return st;
    }
    *comm = c;
    return MM_OK;
}

static mm_status is_ready(mm_nccl_comm *comm, bool *is_ready)
{
    ncclResult_t state = ncclSuccess;
    mm_status st = check(ncclCommGetAsyncError(comm->nccl, &state), comm->nccl,
                         "reading its error state");
    if (st == MM_OK)
        st = check(state, comm->nccl, "summing over GPUs");
    *is_ready = st == MM_OK && state == ncclSuccess;
    return st;
}

static mm_status sum(mm_nccl_comm *comm, void *values, int64_t n,
                     mm_nccl_type type, void *stream)
{
    static const ncclDataType_t types[] = {ncclBfloat16, ncclFloat32};
    return check(ncclAllReduce(values, values, (size_t)n, types[type], ncclSum,
                               comm->nccl, (cudaStream_t)stream),
                 comm->nccl, "summing over GPUs");
}

/** Wait for NCCL's own threads, up to a limit. */
static bool settles(mm_nccl_comm *comm)
{
    const time_t begin = time(NULL);
    bool settled = false;
    while (is_ready(comm, &settled) == MM_OK && !settled &&
           time(NULL) - begin < 10)
        sched_yield();
    return settled;
}

static void destroy(mm_nccl_comm *comm)
{
    const bool has_left =
        comm->nccl && settles(comm) &&
        check(ncclCommFinalize(comm->nccl), comm->nccl, "leaving") == MM_OK &&
        settles(comm);
    if (has_left) {
        /* Whatever it returns, the communicator is gone. */
        (void)ncclCommDestroy(comm->nccl);
        comm->nccl = NULL;
    }
    abort_comm(comm);
    free(comm);
}

static const mm_nccl functions = {
    .make_id = make_id,
    .create = create,
    .is_ready = is_ready,
    .sum = sum,
    .abort = abort_comm,
    .destroy = destroy,
};

const void *const mm_module_table = &functions;
const int64_t mm_module_table_bytes = sizeof functions;
