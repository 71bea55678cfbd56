#ifndef MAGMAX_COMM_REDUCER_PLAN_H
#define MAGMAX_COMM_REDUCER_PLAN_H

#include "comm/comm.h"
#include "kernels/device.h"

/* What comm/reducer.h and the transports below it are told. */

/** Where a message of several begins: at a multiple of 64 bytes. */
enum { MM_REDUCER_ALIGN = 16 };

/** Elements that no message exceeds. */
static inline int64_t mm_reducer_most_elems(int64_t bucket_elems)
{
    return 2 * bucket_elems + MM_REDUCER_ALIGN;
}

/** How sums travel in fewer bytes: `pack` writes n numbers for the wire,
 * `unpack` reads them back. On GPUs only; enqueued like ops. */
typedef struct mm_reducer_wire {
    mm_status (*pack)(void *context, mm_stream *stream, void *wire,
                      const float *values, int64_t n);
    mm_status (*unpack)(void *context, mm_stream *stream, float *values,
                        const void *wire, int64_t n);
    void *context;
} mm_reducer_wire;

typedef struct mm_reducer_plan {
    mm_comm *comm;
    mm_device *device;
    mm_stream *stream;    /* computes the gradient                          */
    int64_t bucket_elems; /* of a message, as above                         */
    const mm_reducer_wire *bf16; /* sum as bf16, made by this; NULL: as fp32 */
} mm_reducer_plan;

#endif
