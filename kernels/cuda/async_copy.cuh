#ifndef MAGMAX_KERNELS_CUDA_ASYNC_COPY_CUH
#define MAGMAX_KERNELS_CUDA_ASYNC_COPY_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Copies from device memory to shared memory that pass the registers by and run
 * while a thread goes on (cp.async). A thread closes groups of what it has
 * started and waits for its own groups, oldest first; a barrier after that
 * shows them to the block. The tests' bodies (tests/cuda_on_cpu) spoil what is
 * copied to until it has been waited for.
 */

#ifdef __CUDACC__

/** Start 16 bytes, both sides so aligned; zeros when not `there`, whatever
 * `from` is. */
__device__ __forceinline__ void mm_copy_async(void *to_shared, const void *from,
                                              bool there)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to_shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(at), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

/** What was started since the last one is a group. */
__device__ __forceinline__ void mm_close_copies()
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/** Wait for all groups but the last N. */
template <int N> __device__ __forceinline__ void mm_wait_copies()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

#else

inline void mm_copy_async(void *to_shared, const void *from, bool there)
{
    mm_emu::copy_async(to_shared, from, there);
}

inline void mm_close_copies()
{
    mm_emu::close_copies();
}

template <int N> inline void mm_wait_copies()
{
    mm_emu::wait_copies(N);
}

#endif

#endif
