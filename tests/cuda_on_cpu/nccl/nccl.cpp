/*
 * NCCL's calls by MPI: sums take place in stream order, when the stream runs,
 * and a stream waits where its sum is missing a rank, as on a GPU, without
 * blocking the host. A module of its own, since only programs that joined a
 * job may call MPI.
 */
#include "tests/cuda_on_cpu/include/nccl.h"
#include "tests/cuda_on_cpu/include/cuda_bf16.h"
#include "tests/cuda_on_cpu/launch.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mpi.h>
#include <sys/random.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

/** What ranks send each other when they join. */
struct greeting {
    ncclUniqueId id;
    long host;
    char gpu[16];
};

} // namespace

struct mm_emu_comm {
    enum { DUPLICATING, GREETING, JOINED, FAILED } state = DUPLICATING;
    MPI_Comm mpi = MPI_COMM_NULL;
    MPI_Request request = MPI_REQUEST_NULL;
    int n_ranks;
    greeting mine;
    std::vector<greeting> all;
    std::thread::id thread = std::this_thread::get_id(); /* may call MPI */
    bool given_up = false, finalized = false;
    /* A call that has returned ncclInProgress takes effect when the state has
     * been asked for so many times. */
    int n_polls = 0, n_calls = 0;
    std::function<void()> in_progress;
};

/** Of the stream of the last sum; for tests. */
extern "C" int mm_emu_nccl_priority;
int mm_emu_nccl_priority = 0;

namespace
{

char last_error[256];

void add_bf16(void *from, void *to, int *n, MPI_Datatype *)
{
    const auto *a = static_cast<const __nv_bfloat16 *>(from);
    auto *b = static_cast<__nv_bfloat16 *>(to);
    for (int i = 0; i < *n; i++)
        b[i] =
            __float2bfloat16(__bfloat162float(a[i]) + __bfloat162float(b[i]));
}

/** The GPU that the calling thread uses, whatever its number is here. */
void name_device(char gpu[16])
{
    int device = 0;
    cudaGetDevice(&device);
    if (cudaDeviceGetPCIBusId(gpu, 16, device) != cudaSuccess)
        mm_emu::die("ncclCommInitRankConfig: no GPU %d", device);
}

bool is_over(MPI_Request *request)
{
    int over = 0;
    MPI_Test(request, &over, MPI_STATUS_IGNORE);
    return over != 0;
}

void check_greetings(mm_emu_comm *comm)
{
    comm->state = mm_emu_comm::JOINED;
    for (const greeting &a : comm->all) {
        if (std::memcmp(&a.id, &comm->mine.id, sizeof a.id) != 0)
            mm_emu::die("ncclCommInitRankConfig: ranks have different ids");
        for (const greeting &b : comm->all)
            if (&a < &b && a.host == b.host && std::strcmp(a.gpu, b.gpu) == 0) {
                comm->state = mm_emu_comm::FAILED;
                std::snprintf(last_error, sizeof last_error,
                              "Duplicate GPU detected : rank %d and rank %d "
                              "both on CUDA device %s",
                              static_cast<int>(&a - comm->all.data()),
                              static_cast<int>(&b - comm->all.data()), a.gpu);
            }
    }
}

/** Get on with joining. */
void join(mm_emu_comm *comm)
{
    if (comm->state == mm_emu_comm::DUPLICATING && is_over(&comm->request)) {
        comm->state = mm_emu_comm::GREETING;
        MPI_Iallgather(&comm->mine, sizeof comm->mine, MPI_BYTE,
                       comm->all.data(), sizeof comm->mine, MPI_BYTE, comm->mpi,
                       &comm->request);
    }
    if (comm->state == mm_emu_comm::GREETING && is_over(&comm->request))
        check_greetings(comm);
}

/** Do it now, or, every other time, later as a thread of NCCL's would. */
ncclResult_t carry_out(mm_emu_comm *comm, std::function<void()> work)
{
    enum { N_POLLS = 3 };
    comm->n_polls = comm->n_calls++ % 2 ? 0 : N_POLLS;
    comm->in_progress = std::move(work);
    if (comm->n_polls > 0)
        return ncclInProgress;
    comm->in_progress();
    return ncclSuccess;
}

/** Is what was called last still under way? */
bool is_busy(mm_emu_comm *comm)
{
    if (comm->n_polls == 0)
        return false;
    if (--comm->n_polls == 0)
        comm->in_progress();
    return comm->n_polls > 0;
}

/** One sum in a stream: tried until it is over. The bytes travel in a copy,
 * since device memory is out of reach between tries. */
struct all_reduce {
    mm_emu_comm *comm;
    void *values;
    int n;
    std::size_t elem_bytes;
    MPI_Datatype type;
    MPI_Op op;
    MPI_Request request = MPI_REQUEST_NULL;
    std::vector<char> copy;

    bool attempt()
    {
        if (comm->given_up)
            return true;
        if (std::this_thread::get_id() != comm->thread)
            return false;
        const std::size_t n_bytes = static_cast<std::size_t>(n) * elem_bytes;
        if (copy.empty()) {
            mm_emu::require_device_memory("ncclAllReduce", values, n_bytes);
            copy.resize(n_bytes);
            std::memcpy(copy.data(), values, n_bytes);
            MPI_Iallreduce(MPI_IN_PLACE, copy.data(), n, type, op, comm->mpi,
                           &request);
        }
        if (!is_over(&request))
            return false;
        std::memcpy(values, copy.data(), n_bytes);
        return true;
    }
};

} // namespace

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclInProgress:
        return "NCCL operation in progress";
    default:
        return "unknown result code";
    }
}

const char *ncclGetLastError(ncclComm_t)
{
    return last_error;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    return getrandom(id, sizeof *id, 0) == sizeof *id ? ncclSuccess
                                                      : ncclInternalError;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks,
                                    ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    int world_rank, world_size;
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world_size);
    if (config->blocking != 0 || rank != world_rank || n_ranks != world_size)
        mm_emu::die("ncclCommInitRankConfig: only without blocking, and for "
                    "all ranks of the job");
    auto *c = new mm_emu_comm;
    c->n_ranks = n_ranks;
    c->mine = greeting{id, gethostid(), {}};
    name_device(c->mine.gpu);
    c->all.resize(static_cast<std::size_t>(n_ranks));
    MPI_Comm_idup(MPI_COMM_WORLD, &c->mpi, &c->request);
    *comm = c;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    join(comm);
    *state = comm->state == mm_emu_comm::FAILED ? ncclInvalidUsage
             : comm->state == mm_emu_comm::JOINED && !is_busy(comm)
                 ? ncclSuccess
                 : ncclInProgress;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count,
                           ncclDataType_t type, ncclRedOp_t, ncclComm_t comm,
                           cudaStream_t stream)
{
    static MPI_Op sum_bf16 = MPI_OP_NULL;
    if (sum_bf16 == MPI_OP_NULL)
        MPI_Op_create(add_bf16, 1, &sum_bf16);
    if (from != to || comm->state != mm_emu_comm::JOINED || comm->n_polls > 0)
        mm_emu::die("ncclAllReduce: in place only, and once the calls before "
                    "are no longer in progress");
    cudaStreamGetPriority(stream, &mm_emu_nccl_priority);
    auto work = std::make_shared<all_reduce>();
    work->comm = comm;
    work->values = to;
    work->n = static_cast<int>(count);
    work->elem_bytes = type == ncclFloat32 ? 4 : 2;
    work->type = type == ncclFloat32 ? MPI_FLOAT : MPI_UINT16_T;
    work->op = type == ncclBfloat16 ? sum_bf16 : MPI_SUM;
    return carry_out(comm, [=]() {
        mm_emu::enqueue_until(stream, [work]() { return work->attempt(); });
    });
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    if (comm->state != mm_emu_comm::JOINED || comm->n_polls > 0 ||
        comm->finalized)
        return ncclInvalidArgument;
    comm->finalized = true;
    comm->n_calls = 0;
    return carry_out(comm, []() {});
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!comm->finalized || comm->n_polls > 0)
        mm_emu::die("ncclCommDestroy: before ncclCommFinalize is over");
    MPI_Comm_free(&comm->mpi);
    delete comm;
    return ncclSuccess;
}

/* Work in streams still refers to the communicator: it is kept. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    static std::vector<std::unique_ptr<mm_emu_comm>> kept;
    if (std::getenv("NCCL_DEBUG"))
        std::fprintf(stderr, "NCCL INFO communicator given up\n");
    comm->given_up = true;
    kept.emplace_back(comm);
    return ncclSuccess;
}
