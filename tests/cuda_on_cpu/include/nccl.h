#ifndef MAGMAX_TESTS_CUDA_ON_CPU_NCCL_H
#define MAGMAX_TESTS_CUDA_ON_CPU_NCCL_H

/*
 * Stand-in for NCCL's header: the part that comm/nccl uses, carried out by MPI.
 * Names and meanings are the vendor's.
 */

#include "tests/cuda_on_cpu/include/cuda_runtime_api.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_emu_comm *ncclComm_t;

typedef struct {
    char internal[128];
} ncclUniqueId;

typedef enum {
    ncclSuccess = 0,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7
} ncclResult_t;

typedef enum { ncclFloat32 = 7, ncclBfloat16 = 9 } ncclDataType_t;

typedef enum { ncclSum = 0 } ncclRedOp_t;

typedef struct {
    int blocking;
} ncclConfig_t;

/* clang-format off */
#define NCCL_CONFIG_INITIALIZER {1}
/* clang-format on */

const char *ncclGetErrorString(ncclResult_t result);
const char *ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks,
                                    ncclUniqueId id, int rank,
                                    ncclConfig_t *config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count,
                           ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);

#ifdef __cplusplus
}
#endif

#endif
