/*
 * Streams mostly keep what is enqueued until the host waits, so that a host
 * which reads a result, or changes an input, too early is found out.
 *
 * So is a stream that fails to wait for another one: now and then others run
 * first as far as events allow, or some of them a little, or what is enqueued
 * runs at once, or beyond what was waited for. What a copy goes to is NaN while
 * it is under way. MAGMAX_CUDA_ON_CPU_SEED gives another such order; each is
 * the same in every run.
 */
#include "tests/cuda_on_cpu/launch.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <unistd.h>
#include <vector>

struct mm_emu_stream {
    std::deque<std::function<bool()>> work;
    bool runs = false;
    int priority = 0; /* asked for; the order of what runs is drawn */
};

namespace mm_emu
{

namespace
{

/** Where in a stream an event was recorded. */
struct place {
    mm_emu_stream *stream;
    bool past = false;
};

} // namespace

} // namespace mm_emu

struct mm_emu_event {
    std::shared_ptr<mm_emu::place> last;
};

namespace mm_emu
{

namespace
{

std::recursive_mutex lock; /* of all streams and events */
using holding = std::lock_guard<std::recursive_mutex>;

std::vector<mm_emu_stream *> &all_streams()
{
    static std::vector<mm_emu_stream *> streams; /* in the order of making */
    return streams;
}

/** Run what is first in the stream; false where it has to wait for something,
 * or for itself. */
bool step(mm_emu_stream *stream)
{
    if (stream->runs || stream->work.empty())
        return false;
    stream->runs = true;
    bool done = stream->work.front()();
    stream->runs = false;
    if (done)
        stream->work.pop_front();
    return done;
}

/** Run what the stream has, until `enough`; false where it has to wait. */
template <typename Condition>
bool advance(mm_emu_stream *stream, Condition enough)
{
    while (!enough())
        if (!step(stream))
            return false;
    return true;
}

bool advance_to(const std::shared_ptr<place> &to)
{
    return advance(to->stream, [&]() { return to->past; });
}

bool advance_to_end(mm_emu_stream *stream)
{
    return advance(stream, [&]() { return stream->work.empty(); });
}

std::uint32_t seed()
{
    const char *text = std::getenv("MAGMAX_CUDA_ON_CPU_SEED");
    return text ? static_cast<std::uint32_t>(std::atoi(text)) : 1;
}

/** A number below n, in no simple pattern. */
std::size_t draw(std::size_t n)
{
    static std::uint32_t state = seed() * 2654435761u;
    state = state * 1664525u + 1013904223u;
    return (state >> 12) % n;
}

/** Some of what streams have, in some order. */
void wander()
{
    for (std::size_t n = draw(8); n > 0; n--)
        step(all_streams()[draw(all_streams().size())]);
}

/** Run what it takes, and what else a GPU may have done by then. */
template <typename Advance>
bool try_to(const mm_emu_stream *stream, Advance run)
{
    enum { OTHERS_FIRST, SOME_FIRST, SOME_AFTER, N_WAYS = 6 };
    holding hold(lock);
    if (stream->work.empty())
        return true;
    open_device_memory();
    const std::size_t way = draw(N_WAYS);
    if (way == OTHERS_FIRST)
        for (mm_emu_stream *other : all_streams())
            if (other != stream)
                advance_to_end(other);
    if (way == SOME_FIRST)
        wander();
    bool done = run();
    if (way == SOME_AFTER)
        wander();
    close_device_memory();
    return done;
}

bool try_to_reach(const std::shared_ptr<place> &to)
{
    return try_to(to->stream, [&]() { return advance_to(to); });
}

/** Until `attempt` gives true. Other ranks, which it may wait for, need this
 * core. */
template <typename Attempt> void insist(Attempt attempt)
{
    const struct timespec pause = {0, 50000};
    while (!attempt())
        nanosleep(&pause, nullptr);
}

constexpr std::size_t SHARED_BYTES = 48 << 10;
/* The lower the number, the more urgent; a GPU's of today. */
constexpr int LEAST_PRIORITY = 0, GREATEST_PRIORITY = -5;

thread_local cudaError_t last_error = cudaSuccess;

/* MAGMAX_CUDA_ON_CPU_STUCK="KERNEL DEVICE FILE": while the file exists, kernels
 * with that in their name do not finish on that device. */
bool is_stuck(const char *name, int device)
{
    static const char *const wanted = std::getenv("MAGMAX_CUDA_ON_CPU_STUCK");
    char kernel[64], file[512];
    int which;
    return wanted &&
           std::sscanf(wanted, "%63s %d %511s", kernel, &which, file) == 3 &&
           which == device && std::strstr(name, kernel) &&
           access(file, F_OK) == 0;
}

std::map<const void *, std::size_t> &allowed_shared()
{
    static std::map<const void *, std::size_t> bytes;
    return bytes;
}

cudaError_t check_launch(const void *kernel, dim3 grid, dim3 block,
                         std::size_t shared_bytes)
{
    unsigned long long n_threads =
        static_cast<unsigned long long>(block.x) * block.y * block.z;
    auto found = allowed_shared().find(kernel);
    std::size_t most =
        found == allowed_shared().end() ? SHARED_BYTES : found->second;
    bool fits = n_threads > 0 && n_threads <= 1024 && grid.x > 0 &&
                grid.x <= 0x7FFFFFFFu && grid.y > 0 && grid.y <= 65535 &&
                grid.z > 0 && grid.z <= 65535 && shared_bytes <= most;
    return fits ? cudaSuccess : cudaErrorInvalidConfiguration;
}

} // namespace

void set_error(cudaError_t error)
{
    last_error = error;
}

void enqueue_until(cudaStream_t stream, std::function<bool()> work)
{
    if (!stream)
        die("the default stream is not for use");
    holding hold(lock);
    stream->work.push_back(std::move(work));
    if (draw(16) != 0)
        return;
    open_device_memory();
    wander();
    close_device_memory();
}

void enqueue(cudaStream_t stream, std::function<void()> work)
{
    enqueue_until(stream, [work = std::move(work)]() {
        work();
        return true;
    });
}

void launch(const char *name, const void *kernel, dim3 grid, dim3 block,
            std::size_t shared_bytes, cudaStream_t stream,
            std::function<void()> body)
{
    cudaError_t error = check_launch(kernel, grid, block, shared_bytes);
    if (error != cudaSuccess) {
        set_error(error);
        return;
    }
    if (block.x * block.y * block.z % 32 != 0)
        die("kernel %s: blocks of %u threads, not of whole warps", name,
            block.x * block.y * block.z);
    int device;
    cudaGetDevice(&device);
    enqueue_until(stream, [=, body = std::move(body)]() {
        if (is_stuck(name, device))
            return false;
        run_grid(name, grid, block, shared_bytes, body);
        return true;
    });
}

cudaError_t allow_shared(const void *kernel, int n_bytes)
{
    if (n_bytes < 0 || static_cast<std::size_t>(n_bytes) > most_shared_bytes())
        return cudaErrorInvalidValue;
    allowed_shared()[kernel] = static_cast<std::size_t>(n_bytes);
    return cudaSuccess;
}

} // namespace mm_emu

using namespace mm_emu;

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = LEAST_PRIORITY;
    *greatest = GREATEST_PRIORITY;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned,
                                         int priority)
{
    holding hold(lock);
    *stream = new mm_emu_stream;
    (*stream)->priority =
        std::clamp(priority, GREATEST_PRIORITY, LEAST_PRIORITY);
    all_streams().push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    *priority = stream->priority;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    insist([=]() {
        return try_to(stream, [=]() { return advance_to_end(stream); });
    });
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaError_t error = cudaStreamSynchronize(stream);
    holding hold(lock);
    auto &all = all_streams();
    all.erase(std::find(all.begin(), all.end(), stream));
    delete stream;
    return error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new mm_emu_event;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    auto here = std::make_shared<place>();
    here->stream = stream;
    enqueue(stream, [here]() { here->past = true; });
    event->last = here;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned)
{
    if (event->last)
        enqueue_until(stream, [at = event->last]() { return advance_to(at); });
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    std::shared_ptr<place> at = event->last;
    if (!at || at->past)
        return cudaSuccess;
    {
        holding hold(lock);
        if (draw(3) == 0)
            return cudaErrorNotReady;
    }
    return try_to_reach(at) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    std::shared_ptr<place> at = event->last;
    insist([&]() { return !at || at->past || try_to_reach(at); });
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n_bytes,
                            enum cudaMemcpyKind kind, cudaStream_t stream)
{
    enqueue(stream, [=]() {
        if (kind != cudaMemcpyHostToDevice)
            require_device_memory("cudaMemcpyAsync from", from, n_bytes);
        if (kind != cudaMemcpyDeviceToHost)
            require_device_memory("cudaMemcpyAsync to", to, n_bytes);
        poison(to, n_bytes);
    });
    enqueue(stream, [=]() { std::memcpy(to, from, n_bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t n_bytes,
                            cudaStream_t stream)
{
    enqueue(stream, [=]() {
        require_device_memory("cudaMemsetAsync", memory, n_bytes);
        std::memset(memory, value, n_bytes);
    });
    return cudaSuccess;
}
