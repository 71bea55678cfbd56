#ifndef MAGMAX_KERNELS_CUDA_MODULE_H
#define MAGMAX_KERNELS_CUDA_MODULE_H

#include "kernels/backend.h"

/* Sizes by which program and module check that they fit; private to kernels/.
 */
enum { MM_CUDA_TABLE_BYTES = sizeof(mm_ops) * 65536 + sizeof(mm_backend) };

/**
 * The backend in libmagmax_cuda.so (src/base/module.h), which the environment's
 * MAGMAX_CUDA_MODULE may replace.
 *
 * Memory   *backend stays for as long as the program runs.
 * Ranks    Local.
 * Timing   Blocking; milliseconds where there is no driver.
 * Errors   MM_E_DEVICE saying what is missing.
 */
mm_status mm_module_open_cuda(const mm_backend **backend);

#endif
