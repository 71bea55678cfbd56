#ifndef MAGMAX_SRC_MERGE_PIPELINE_H
#define MAGMAX_SRC_MERGE_PIPELINE_H

#include "src/merge/method.h"

/**
 * The path of a merge's blocks through a device: from memory that files are
 * read into, through the ops, to memory that files are written from.
 *
 * Where the device has memory of its own there are two of every host buffer and
 * of every input on the device, and a stream for copies beside that for ops, so
 * that reading, copying and computing go on at once. Elsewhere there is one of
 * each, host and device memory are the same, and nothing is copied.
 */
typedef struct mm_pipeline mm_pipeline;

/** What is read: a block of theta_0, a task's. */
typedef enum mm_pipeline_input {
    MM_PIPELINE_BASE,
    MM_PIPELINE_TUNED,
    MM_PIPELINE_INPUTS
} mm_pipeline_input;

/** A merged block, in host memory until the next call. */
typedef struct mm_pipeline_result {
    int64_t lo; /* as given to mm_pipeline_end */
    int64_t n_elems;
    const float *merged;
    const uint16_t *winner; /* NULL where the method picks none */
} mm_pipeline_result;

/**
 * Memory   Gives *pipeline, freed by mm_pipeline_destroy, which waits for what
 *          is under way; keeps device and method. All memory is taken here.
 * Ranks    Local.
 * Errors   MM_E_MEMORY, MM_E_DEVICE.
 */
mm_status mm_pipeline_create(mm_device *device, const mm_merge_method *method,
                             mm_pipeline **pipeline);
void mm_pipeline_destroy(mm_pipeline **pipeline);

/** The most elements that go through at once. */
int64_t mm_pipeline_block_elems(const mm_pipeline *pipeline);

/**
 * Host memory for the next block of an input, once what it held before has been
 * copied.
 *
 * Memory   *host: one block, the caller's to fill until mm_pipeline_send.
 * Timing   Blocking.
 */
mm_status mm_pipeline_host(mm_pipeline *pipeline, mm_pipeline_input input,
                           float **host);

/**
 * Send that memory's first n_elems to the device. Ops on the pipeline's stream
 * may use *device from here on, until mm_pipeline_used.
 *
 * Timing   Enqueued.
 */
mm_status mm_pipeline_send(mm_pipeline *pipeline, mm_pipeline_input input,
                           int64_t n_elems, const float **device);

/** Call once the ops that use the block sent last have been enqueued. */
mm_status mm_pipeline_used(mm_pipeline *pipeline, mm_pipeline_input input);

/**
 * Begin to fold: fill *block in, with tau at 0, around a block of theta_0 that
 * has been sent.
 *
 * Timing   Enqueued.
 */
mm_status mm_pipeline_begin(mm_pipeline *pipeline, int64_t first_elem,
                            int64_t n_elems, const float *base,
                            mm_merge_block *block);

/**
 * End it: the merged weights are copied back, and returned as `lo` by
 * mm_pipeline_next, which must keep room for them.
 *
 * Timing   Enqueued.
 */
mm_status mm_pipeline_end(mm_pipeline *pipeline,
                          const mm_merge_settings *settings,
                          const mm_merge_block *block, int64_t lo);

/**
 * The oldest merged block, where there is no room for another one, or with
 * `all` wherever there is one; *found says whether.
 *
 * Timing   Blocking.
 */
mm_status mm_pipeline_next(mm_pipeline *pipeline, bool all, bool *found,
                           mm_pipeline_result *result);

#endif
