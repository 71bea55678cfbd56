#ifndef MAGMAX_TESTS_CUDA_ON_CPU_CUDA_BF16_H
#define MAGMAX_TESTS_CUDA_ON_CPU_CUDA_BF16_H

/* Stand-in for the toolkit's header: the upper half of an fp32 number. */

#include "tests/cuda_on_cpu/include/cuda_runtime.h"

#ifdef __cplusplus
struct __nv_bfloat16 {
    std::uint16_t bits;
};

/** To nearest, ties to even. */
inline __nv_bfloat16 __float2bfloat16(float x)
{
    std::uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return {0x7FFF};
    bits += 0x7FFFu + (bits >> 16 & 1u);
    return {static_cast<std::uint16_t>(bits >> 16)};
}

inline float __bfloat162float(__nv_bfloat16 x)
{
    return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16);
}
#endif

#endif
