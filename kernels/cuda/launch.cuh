#ifndef MAGMAX_KERNELS_CUDA_LAUNCH_CUH
#define MAGMAX_KERNELS_CUDA_LAUNCH_CUH

#include "kernels/cuda/cuda.h"

#include <cuda_bf16.h>

/*
 * What every kernel file shares: launching, shared memory, 16-byte accesses.
 * The tests run these sources on a CPU by giving their own MM_LAUNCH and
 * MM_..SHARED beforehand.
 */

#ifndef MM_LAUNCH
#define MM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define MM_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define MM_DYNAMIC_SHARED(type, name)                            \
    extern __shared__ __align__(16) unsigned char mm_dynamic_[]; \
    type *name = reinterpret_cast<type *>(mm_dynamic_)
#endif

typedef __nv_bfloat16 mm_bf16;

enum { MM_WARP = 32, MM_ROWS_PER_BLOCK = 8 };

/** N elements that one access moves. */
template <typename T, int N> struct alignas(sizeof(T) * N) mm_vec {
    T v[N];
};

/** Elements of a 16-byte access. */
template <typename T> constexpr int mm_wide = 16 / (int)sizeof(T);

template <int N, typename T>
__device__ __forceinline__ mm_vec<T, N> mm_load(const T *from)
{
    return *reinterpret_cast<const mm_vec<T, N> *>(from);
}

template <int N, typename T>
__device__ __forceinline__ void mm_store(T *to, const mm_vec<T, N> &x)
{
    *reinterpret_cast<mm_vec<T, N> *>(to) = x;
}

__device__ __forceinline__ float mm_float_of(float x)
{
    return x;
}

__device__ __forceinline__ float mm_float_of(mm_bf16 x)
{
    return __bfloat162float(x);
}

__device__ __forceinline__ void mm_set(float &to, float x)
{
    to = x;
}

__device__ __forceinline__ void mm_set(mm_bf16 &to, float x)
{
    to = __float2bfloat16(x);
}

template <typename T, int N>
__device__ __forceinline__ mm_vec<float, N> mm_floats_of(const mm_vec<T, N> &x)
{
    mm_vec<float, N> y;
#pragma unroll
    for (int i = 0; i < N; i++)
        y.v[i] = mm_float_of(x.v[i]);
    return y;
}

/** The same, as fp32 whatever is stored. */
template <int N, typename T>
__device__ __forceinline__ mm_vec<float, N> mm_load_floats(const T *from)
{
    return mm_floats_of(mm_load<N>(from));
}

template <int N, typename T>
__device__ __forceinline__ void mm_store_floats(T *to,
                                                const mm_vec<float, N> &x)
{
    mm_vec<T, N> y;
#pragma unroll
    for (int i = 0; i < N; i++)
        mm_set(y.v[i], x.v[i]);
    mm_store<N>(to, y);
}

/** An activation's address as that of what it is, float or mm_bf16. */
template <typename T> inline T *mm_as(mm_act *x)
{
    return reinterpret_cast<T *>(x);
}

template <typename T> inline const T *mm_as(const mm_act *x)
{
    return reinterpret_cast<const T *>(x);
}

/** f of a number of the stream's activation type. The op refuses NULL. */
template <typename F> mm_status mm_by_act(mm_stream *stream, F f)
{
    if (stream && mm_cuda_stream_of(stream)->precision == MM_CUDA_BF16)
        return f(mm_bf16());
    return f(float());
}

/** Can all of these be accessed N elements at a time? NULL can. */
template <int N, typename... T> inline bool mm_fits(const T *...pointers)
{
    return ((reinterpret_cast<uintptr_t>(pointers) % (N * sizeof(T)) == 0) &&
            ...);
}

/** The sum of every lane's x, the same in every lane. */
template <typename A> __device__ __forceinline__ A mm_warp_sum(A x)
{
#pragma unroll
    for (int other = MM_WARP / 2; other > 0; other /= 2)
        x += __shfl_xor_sync(0xFFFFFFFFu, x, other);
    return x;
}

__device__ __forceinline__ float mm_warp_max(float x)
{
#pragma unroll
    for (int other = MM_WARP / 2; other > 0; other /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, other));
    return x;
}

__device__ __forceinline__ int mm_lane()
{
    return (int)(threadIdx.x % MM_WARP);
}

/** The row of a kernel that gives each warp one; blocks of
 * MM_ROWS_PER_BLOCK warps. */
__device__ __forceinline__ int64_t mm_warp_row()
{
    return (int64_t)blockIdx.x * MM_ROWS_PER_BLOCK + threadIdx.x / MM_WARP;
}

/** Let a kernel's blocks have n_bytes of dynamic shared memory, and prefer
 * shared memory to cache, so that as many of them as can are resident. */
template <typename K>
mm_status mm_allow_shared(const char *op, K *kernel, size_t n_bytes)
{
    MM_TRY(MM_CUDA(
        cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes),
        "%s needs %lld bytes of shared memory", op, (long long)n_bytes));
    return MM_CUDA(cudaFuncSetAttribute(
                       kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                       cudaSharedmemCarveoutMaxShared),
                   "%s prefers shared memory", op);
}

/** Blocks for a kernel whose blocks each do `per_block` of `n`; n > 0. */
inline unsigned mm_blocks(int64_t n, int64_t per_block)
{
    return (unsigned)mm_ceil_div(n, per_block);
}

#endif
