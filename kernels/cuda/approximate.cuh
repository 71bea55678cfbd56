#ifndef MAGMAX_KERNELS_CUDA_APPROXIMATE_CUH
#define MAGMAX_KERNELS_CUDA_APPROXIMATE_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Elementary functions that are one instruction each, for results that are
 * rounded to bf16 anyway. Errors are the PTX manual's; on the CPU they are
 * exact but for rounding.
 */

#ifdef __CUDACC__

/** 2^x to two units in the last place; 0 where that is below 2^-126. */
__device__ __forceinline__ float mm_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/** 1 / x to one unit in the last place; 0 where that is below 2^-126. */
__device__ __forceinline__ float mm_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else

inline float mm_exp2(float x)
{
    return exp2f(x);
}

inline float mm_reciprocal(float x)
{
    return 1.0f / x;
}

#endif

#endif
