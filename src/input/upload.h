#ifndef MAGMAX_SRC_INPUT_UPLOAD_H
#define MAGMAX_SRC_INPUT_UPLOAD_H

#include "kernels/device.h"

/**
 * Brings batches to a device while it still computes on the one before: copies
 * run on a stream of their own, into two buffers in turn. Where device memory
 * is the host's, nothing is copied and the host's memory is used in place.
 */
typedef struct mm_upload mm_upload;

/** One array of a batch. */
typedef struct mm_upload_part {
    const void *host;
    int64_t n_bytes;
    const void *device; /* where the device finds it; 64-byte aligned there if
                           on the host */
} mm_upload_part;

/**
 * Memory   Gives *upload, freed by mm_upload_destroy, which waits for its
 *          copies; keeps device. A batch's parts may have `n_bytes` in all, of
 *          at most MM_UPLOAD_PARTS.
 * Ranks    Local.
 */
enum { MM_UPLOAD_PARTS = 4 };
mm_status mm_upload_create(mm_device *device, int64_t n_bytes,
                           mm_upload **upload);
void mm_upload_destroy(mm_upload **upload);

/** Device bytes that mm_upload_create takes. */
int64_t mm_upload_n_bytes(const mm_device *device, int64_t n_bytes);

/**
 * Copy a batch, set its parts' `device`, and let `stream` wait for them there.
 *
 * Memory   Host memory borrowed until mm_upload_wait; mm_host_alloc's, or the
 *          host may wait here. What `device` points to is the caller's until
 *          the batch after next.
 * Timing   Enqueued. Copies wait for what was enqueued before mm_upload_used
 *          of the batch that had the buffer.
 */
mm_status mm_upload_start(mm_upload *upload, mm_stream *stream,
                          mm_upload_part *parts, int n_parts);

/** Call once the ops that read the last batch are all enqueued on `stream`. */
mm_status mm_upload_used(mm_upload *upload, mm_stream *stream);

/** Wait until the host's memory of the last batch is free again. */
mm_status mm_upload_wait(mm_upload *upload);

#endif
