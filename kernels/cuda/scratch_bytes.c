/* The scratch memory that the CUDA ops of a model need. */

#include "kernels/cuda/cuda.h"

mm_status mm_cuda_scratch_bytes(int64_t *n_bytes, int64_t n_tokens,
                                int64_t width, int64_t n_heads)
{
    MM_CUDA_REQUIRE("scratch_bytes", n_bytes && n_tokens >= 0 && width >= 0);
    MM_CUDA_REQUIRE("scratch_bytes", n_heads > 0 && width % n_heads == 0);
    *n_bytes = mm_cuda_layernorm_scratch(width);
    return MM_OK;
}
