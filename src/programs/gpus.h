#ifndef MAGMAX_SRC_PROGRAMS_GPUS_H
#define MAGMAX_SRC_PROGRAMS_GPUS_H

#include "comm/comm.h"
#include "kernels/device.h"
#include "src/base/log.h"

/**
 * Check that the ranks' devices go together: all have a GPU or none has, since
 * their weights would differ; and no two share one, which is an error where
 * `each_its_own`, since NCCL takes one rank per GPU, and else a warning.
 *
 * Ranks    Collective, same each_its_own; the same status on every rank.
 * Timing   Blocking.
 * Errors   MM_E_DEVICE naming the ranks, the GPU and its host; MM_E_COMM.
 */
mm_status mm_gpus_check(mm_comm *comm, mm_log *log, const mm_device *device,
                        bool each_its_own);

#endif
