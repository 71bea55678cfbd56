#ifndef MAGMAX_SRC_MERGE_MERGE_H
#define MAGMAX_SRC_MERGE_MERGE_H

#include "comm/comm.h"
#include "src/base/log.h"
#include "src/merge/method.h"

#include <jansson.h>
#include <stdint.h>

/** One merge. All is borrowed. */
typedef struct mm_merge_request {
    const char *pretrained;    /* theta_0                              */
    const char *const *inputs; /* the tasks' checkpoints in task order */
    int n_inputs;
    const char *output; /* checkpoint to write (.h5)                   */
    const mm_merge_method *method;
    double coef; /* lambda, used as fp32             */
    uint64_t seed;
    const json_t *options; /* recorded in the output; NULL: nothing    */
    mm_device *device;     /* folds                                    */
} mm_merge_request;

/** The result, over all ranks. */
typedef struct mm_merge_result {
    int64_t n_elems; /* that were folded                                */
    int64_t *n_won;  /* [n_inputs], the caller's memory: elements whose
                        change is that task's; zeros where the method
                        does not pick                                   */
} mm_merge_result;

/**
 * Merge checkpoints: fold the tensors that the inputs hold, copy the
 * pre-trained file's others, write one checkpoint.
 *
 * Every rank opens every file and streams its own slice of the elements
 * through the device in blocks: read theta_0, then each input, fold, finish,
 * write. Nothing is exchanged but statuses, checksums and counts. Checksums of
 * all files are compared before the output gets its name, which replaces an
 * earlier file at once; after a failure that one is as it was.
 *
 * Memory   A few blocks per rank, whatever the number of tasks and the size of
 *          the model. `result` is filled on success only, on every rank.
 * Ranks    Collective, same request; a path that is read may lead elsewhere on
 *          each rank, to the same content.
 * Timing   Blocking.
 * Repeat   The output's tensors have the same bits for any number of ranks and
 *          on any device.
 * Errors   MM_E_ARG: no inputs, a coefficient beyond fp32, an output that
 *          is one of the inputs or not a checkpoint's name. MM_E_FORMAT:
 * damaged files; tensors that are missing, unexpected or of another shape,
 * named with their file. MM_E_VALUE: NaN or infinity, in an input or in the
 *          result. MM_E_IO, MM_E_MEMORY, MM_E_DEVICE, MM_E_COMM.
 */
mm_status mm_merge(mm_comm *comm, mm_log *log, const mm_merge_request *request,
                   mm_merge_result *result);

#endif
