#ifndef MAGMAX_TESTS_CUDA_ON_CPU_CUBLAS_H
#define MAGMAX_TESTS_CUDA_ON_CPU_CUBLAS_H

/* What tests ask the stand-in for cuBLASLt. */

#include "tests/cuda_on_cpu/include/cublasLt.h"

namespace mm_emu
{

/** The product that was enqueued last. */
struct product_seen {
    cublasLtEpilogue_t epilogue;
    std::uint32_t algorithm; /* CUBLASLT_ALGO_CONFIG_ID */
    std::size_t workspace_bytes;
};
extern product_seen last_product;

} // namespace mm_emu

#endif
