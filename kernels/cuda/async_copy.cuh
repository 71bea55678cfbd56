#ifndef MAGMAX_KERNELS_CUDA_ASYNC_COPY_CUH
#define MAGMAX_KERNELS_CUDA_ASYNC_COPY_CUH

#include "kernels/cuda/launch.cuh"

/*
 * Copies from device memory to shared memory that bypass the registers and run
 * while a thread goes on (cp.async). A thread commits what it has started as a
 * group and waits for its own groups, oldest first; a barrier after that makes
 * them visible to the block. On the CPU (tests/cuda_on_cpu) the destination is
 * invalid until it has been waited for.
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

/** The copies started since the last commit are a group. */
__device__ __forceinline__ void mm_commit_copies()
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

inline void mm_commit_copies()
{
    mm_emu::commit_copies();
}

template <int N> inline void mm_wait_copies()
{
    mm_emu::wait_copies(N);
}

#endif

#endif
