#ifndef MAGMAX_COMM_NCCL_NCCL_TABLE_H
#define MAGMAX_COMM_NCCL_NCCL_TABLE_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * What the module libmagmax_nccl.so gives comm/nccl/nccl_transport.c; private
 * to comm/nccl and its benchmark.
 */

enum { MM_NCCL_ID_BYTES = 128 };

typedef enum mm_nccl_type { MM_NCCL_BF16, MM_NCCL_FLOAT } mm_nccl_type;

typedef struct mm_nccl_comm mm_nccl_comm;

typedef struct mm_nccl {
    /* On rank 0, for all. */
    mm_status (*make_id)(char id[MM_NCCL_ID_BYTES]);
    /* Start to join, with the calling thread's current GPU. Like `sum`, does
     * not wait for others: is_ready says when the next call may come. */
    mm_status (*create)(const char id[MM_NCCL_ID_BYTES], int rank, int n_ranks,
                        mm_nccl_comm **comm);
    /* Also finds what failed since: MM_E_COMM; MM_E_DEVICE for what the user
     * can mend. */
    mm_status (*is_ready)(mm_nccl_comm *comm, bool *is_ready);
    /* Enqueue on CUDA's `stream`; values[n] in the GPU's memory, in place. */
    mm_status (*sum)(mm_nccl_comm *comm, void *values, int64_t n,
                     mm_nccl_type type, void *stream);
    /* After a failure: drop what is enqueued, so that streams end. */
    void (*abort)(mm_nccl_comm *comm);
    void (*destroy)(mm_nccl_comm *comm);
} mm_nccl;

/** Open the module: on the program's side. Errors: as mm_module_open. */
mm_status mm_nccl_open(const mm_nccl **nccl);

#endif
