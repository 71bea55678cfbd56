#ifndef MAGMAX_TESTS_CUDA_ON_CPU_RACES_H
#define MAGMAX_TESTS_CUDA_ON_CPU_RACES_H

#include <cstddef>

/*
 * Whether two threads of a kernel touch the same memory, one of them writing,
 * with nothing between that orders them. What orders: a barrier, all of a
 * block; __syncwarp, a warp; the end of a kernel, everything. Shuffles and
 * tensor-core instructions order nothing, as NVIDIA's manuals say. Memory is
 * watched in units of two bytes; atomic operations are ignored.
 *
 * Kernels that are compiled with -fsanitize=thread call races.cpp at each
 * access (it stands for that sanitizer's library). In other builds these are
 * empty.
 */

namespace mm_emu::races
{

#ifdef MM_EMU_RACES
constexpr bool WATCHED = true;

/** Memory whose accesses are checked: of a device, or shared by a block. */
void watch(const void *memory, std::size_t n_bytes, bool shared);
void forget(const void *memory, std::size_t n_bytes);

void begin_grid();
void begin_block();
void pass_barrier();

/** An asynchronous copy to `to`, which nothing may touch meanwhile; from NULL
 * are zeros. */
void begin_copy(const void *to, const void *from, std::size_t n_bytes);
void end_copy(const void *to, const void *from, std::size_t n_bytes);
#else
constexpr bool WATCHED = false;

inline void watch(const void *, std::size_t, bool)
{
}
inline void forget(const void *, std::size_t)
{
}
inline void begin_grid()
{
}
inline void begin_block()
{
}
inline void pass_barrier()
{
}
inline void begin_copy(const void *, const void *, std::size_t)
{
}
inline void end_copy(const void *, const void *, std::size_t)
{
}
#endif

} // namespace mm_emu::races

#endif
