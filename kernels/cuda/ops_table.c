/* The table of CUDA ops. */

#include "kernels/cuda/cuda.h"

const mm_ops mm_cuda_ops = {
    .backend = "cuda",
#define MM_OP(op, args) .op = mm_cuda_##op,
#include "kernels/ops_list.h"
#undef MM_OP
};
