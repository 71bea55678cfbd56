/* The scratch memory that the CPU ops of a model need in each thread. */

#include "kernels/cpu/attention.h"
#include "kernels/cpu/layernorm.h"

mm_status MM_CPU(scratch_bytes)(int64_t *n_bytes, int64_t n_tokens,
                                int64_t width, int64_t n_heads)
{
    MM_CPU_REQUIRE("scratch_bytes", n_bytes && n_tokens >= 0 && width >= 0);
    MM_CPU_REQUIRE("scratch_bytes", n_heads > 0 && width % n_heads == 0);
    int64_t attention =
        MM_CPU(attention_scratch)(true, n_tokens, width / n_heads);
    int64_t layernorm = MM_CPU(layernorm_scratch)(width);
    *n_bytes = mm_max_i64(attention, layernorm);
    return MM_OK;
}
