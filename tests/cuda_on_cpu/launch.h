#ifndef MAGMAX_TESTS_CUDA_ON_CPU_LAUNCH_H
#define MAGMAX_TESTS_CUDA_ON_CPU_LAUNCH_H

/*
 * Between the stand-in headers and the runtime: launching a kernel, and what
 * its threads do together.
 */

#include "tests/cuda_on_cpu/include/cuda_runtime_api.h"

#include <cstddef>
#include <functional>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
        : x(x_), y(y_), z(z_)
    {
    }
};

namespace mm_emu
{

/** What a thread knows of itself. */
struct thread_view {
    dim3 thread, block, block_size, grid_size;
    unsigned number = 0; /* in its block */
    unsigned syncs = 0;  /* how often it has been through __syncwarp */
};

/** The thread that is running. __thread: thread_local would go through a
 * function that might initialise it. */
extern __thread thread_view *self __attribute__((tls_model("initial-exec")));

/** What one lane shows the others of its warp. */
struct slot {
    alignas(16) char bytes[64];
};

/** Enqueue; a configuration that a GPU refuses is kept for cudaGetLastError. */
void launch(const char *name, const void *kernel, dim3 grid, dim3 block,
            std::size_t shared_bytes, cudaStream_t stream,
            std::function<void()> body);
cudaError_t allow_shared(const void *kernel, int n_bytes);

/** Wait for the block; every thread must come to the same place. */
void barrier(const char *file, int line);

/** Wait for the warp, showing `n_bytes` to the others; the result, what each
 * lane showed, holds until this lane meets the warp again. With `combine`, what
 * that makes of it, once for the whole warp. */
const slot *meet(const char *what, unsigned mask, const void *shown,
                 std::size_t n_bytes, void (*combine)(slot *all) = nullptr);
inline int lane()
{
    return static_cast<int>(self->number % 32);
}

/** Asynchronous copies of 16 bytes to shared memory, as
 * kernels/cuda/async_copy.cuh has them: carried out when they are waited for,
 * and until then the place that they go to holds NaN. */
void copy_async(void *to_shared, const void *from, bool there);
void commit_copies();
void wait_copies(unsigned n_left);

/** The block's array of that tag; poisoned when the block starts. */
void *shared_array(const void *tag, std::size_t n_bytes);
void *dynamic_shared();

/* ---- between the runtime's own files ------------------------------------ */

/** Run every block of a kernel now. */
void run_grid(const char *name, dim3 grid, dim3 block, std::size_t shared_bytes,
              const std::function<void()> &body);

/** The kernel and thread that the calling thread of the operating system runs;
 * false if none. */
bool running(const char **kernel, dim3 *block, dim3 *thread);

/** Have this thread's faults name the kernel and thread that runs. */
void name_faults();

/** Put work into a stream; with `bool`, work that is tried again until it gives
 * true, while what comes after it in the stream waits. */
void enqueue(cudaStream_t stream, std::function<void()> work);
void enqueue_until(cudaStream_t stream, std::function<bool()> work);

/** Remember for cudaGetLastError. */
void set_error(cudaError_t error);

/** What a block may ask for: MAGMAX_CUDA_ON_CPU_SHARED_KIB; an H100's without
 * it. */
std::size_t most_shared_bytes();

/** End the program unless [memory, memory + n_bytes) is device memory. */
void require_device_memory(const char *what, const void *memory,
                           std::size_t n_bytes);

/** Device memory can be touched only while work runs, by the threads that run
 * it. */
void open_device_memory();
void close_device_memory();

/** Bytes that are a signalling NaN, read as fp32 or as bf16. */
void poison(void *memory, std::size_t n_bytes);

[[noreturn]] void die(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

} // namespace mm_emu

#endif
