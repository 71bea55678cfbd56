#ifndef MAGMAX_TESTS_CUDA_ON_CPU_CUDA_RUNTIME_H
#define MAGMAX_TESTS_CUDA_ON_CPU_CUDA_RUNTIME_H

/* Stand-in for the toolkit's header: the runtime's calls, and for C++ what
 * kernels use. */

#include "tests/cuda_on_cpu/include/cuda_runtime_api.h"
#ifdef __cplusplus
#include "tests/cuda_on_cpu/include/kernel_side.h"
#endif

#endif
