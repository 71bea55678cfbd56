/* The table that the CUDA module exports to the program that loads it. */

#include "kernels/cuda/cuda.h"
#include "kernels/load_cuda.h"
#include "src/base/module.h"

const void *const mm_module_table = &mm_backend_cuda;
const int64_t mm_module_table_bytes = MM_CUDA_TABLE_BYTES;
