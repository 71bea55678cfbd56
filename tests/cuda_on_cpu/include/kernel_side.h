#ifndef MAGMAX_TESTS_CUDA_ON_CPU_KERNEL_SIDE_H
#define MAGMAX_TESTS_CUDA_ON_CPU_KERNEL_SIDE_H

/*
 * What a kernel sees: built-in variables, barriers, shuffles, atomics, shared
 * memory. Each thread of a block is a fibre; fibres.cpp runs them.
 */

#include "tests/cuda_on_cpu/launch.h"

#include <cmath>
#include <cstdint>
#include <cstring>

using std::isfinite;
using std::isnan;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (mm_emu::self->thread)
#define blockIdx (mm_emu::self->block)
#define blockDim (mm_emu::self->block_size)
#define gridDim (mm_emu::self->grid_size)

#define MM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)           \
    mm_emu::launch(#kernel, reinterpret_cast<const void *>(kernel), (grid), \
                   (block), (shared_bytes), (stream),                       \
                   [=]() { kernel(__VA_ARGS__); })

/* Each array has memory of its own, so that overrunning it shows. */
#define MM_SHARED(type, name, count)   \
    static const char name##_tag_ = 0; \
    type *name = static_cast<type *>(  \
        mm_emu::shared_array(&name##_tag_, sizeof(type) * (count)))
#define MM_DYNAMIC_SHARED(type, name) \
    type *name = static_cast<type *>(mm_emu::dynamic_shared())

#define __syncthreads() mm_emu::barrier(__FILE__, __LINE__)

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu)
{
    mm_emu::meet("__syncwarp", mask, nullptr, 0);
    mm_emu::self->syncs++;
}

template <typename T>
inline T mm_emu_from_lane(const char *what, unsigned mask, T value, int lane)
{
    T got;
    const mm_emu::slot *all = mm_emu::meet(what, mask, &value, sizeof value);
    std::memcpy(&got, all[lane & 31].bytes, sizeof got);
    return got;
}

template <typename T> inline T __shfl_sync(unsigned mask, T value, int lane)
{
    return mm_emu_from_lane("__shfl_sync", mask, value, lane);
}

template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int other)
{
    return mm_emu_from_lane("__shfl_xor_sync", mask, value,
                            mm_emu::lane() ^ other);
}

template <typename T> inline T atomicAdd(T *at, T value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

template <typename T> inline T atomicCAS(T *at, T expected, T wanted)
{
    __atomic_compare_exchange_n(at, &expected, wanted, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
    return expected;
}

inline int min(int a, int b)
{
    return a < b ? a : b;
}

inline std::uint32_t __float_as_uint(float x)
{
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float __uint_as_float(std::uint32_t bits)
{
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

/** Dynamic shared memory beyond 48 KiB has to be asked for, as on a GPU. */
template <typename F>
inline cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute what,
                                        int value)
{
    if (what != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    return mm_emu::allow_shared(reinterpret_cast<const void *>(kernel), value);
}

#endif
