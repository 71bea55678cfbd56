/*
 * Device memory. Each allocation ends at a page that cannot be touched, starts
 * poisoned, and can be touched only while a stream's work runs: a kernel that
 * strays, and a host that follows a device pointer, fault. Where the processor
 * has keys for memory, a thread's key decides; elsewhere all of it is mapped
 * and unmapped, which took a quarter of some tests' time.
 */
#include "tests/cuda_on_cpu/launch.h"
#include "tests/cuda_on_cpu/races.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define MARK_OUTSIDE(memory, n_bytes) ASAN_POISON_MEMORY_REGION(memory, n_bytes)
#define MARK_INSIDE(memory, n_bytes) \
    ASAN_UNPOISON_MEMORY_REGION(memory, n_bytes)
#else
#define MARK_OUTSIDE(memory, n_bytes) ((void)(memory), (void)(n_bytes))
#define MARK_INSIDE(memory, n_bytes) ((void)(memory), (void)(n_bytes))
#endif

namespace mm_emu
{

namespace
{

constexpr std::size_t PAGE = 4096, ALIGN = 256;
constexpr unsigned char SLACK = 0xA5;

struct allocation {
    char *pages; /* the mapped part, then one page of guard */
    std::size_t page_bytes, n_bytes;
};

std::mutex lock;
std::map<const char *, allocation> live; /* by the address given out */
std::set<const void *> pinned;
int n_open;                   /* where there are no keys */
thread_local int n_open_here; /* where there are */

/** The key of all device memory, which no thread holds at first; -1 where there
 * are none. */
int key()
{
    static const int own = pkey_alloc(0, PKEY_DISABLE_ACCESS);
    return own;
}

/** Out of reach, as it is while no work runs. */
void close_pages(const allocation &a)
{
    if (key() >= 0)
        pkey_mprotect(a.pages, a.page_bytes, PROT_READ | PROT_WRITE, key());
    else if (n_open == 0)
        mprotect(a.pages, a.page_bytes, PROT_NONE);
}

/** Within reach for good. */
void open_pages(const allocation &a)
{
    if (key() >= 0)
        pkey_mprotect(a.pages, a.page_bytes, PROT_READ | PROT_WRITE, 0);
    else
        mprotect(a.pages, a.page_bytes, PROT_READ | PROT_WRITE);
}

std::size_t round_up(std::size_t n, std::size_t to)
{
    return (n + to - 1) / to * to;
}

void check_slack(const char *memory, const allocation &a)
{
    const char *end = a.pages + a.page_bytes;
    for (const char *p = a.pages; p < end; p++) {
        if (p == memory)
            p += a.n_bytes;
        if (p < end && static_cast<unsigned char>(*p) != SLACK)
            die("a write %td bytes from the start of an allocation of %zu",
                p - memory, a.n_bytes);
    }
}

} // namespace

void die(const char *format, ...)
{
    std::va_list args;
    va_start(args, format);
    std::fputs("cuda on cpu: ", stderr);
    std::vfprintf(stderr, format, args);
    std::fputc('\n', stderr);
    va_end(args);
    std::abort();
}

void poison(void *memory, std::size_t n_bytes)
{
    static const unsigned char pattern[16] = {
        0xBF, 0x7F, 0xBF, 0x7F, 0xBF, 0x7F, 0xBF, 0x7F,
        0xBF, 0x7F, 0xBF, 0x7F, 0xBF, 0x7F, 0xBF, 0x7F};
    char *bytes = static_cast<char *>(memory);
    std::size_t done = 0;
    for (; done + sizeof pattern <= n_bytes; done += sizeof pattern)
        std::memcpy(bytes + done, pattern, sizeof pattern);
    std::memcpy(bytes + done, pattern, n_bytes - done);
}

void require_device_memory(const char *what, const void *memory,
                           std::size_t n_bytes)
{
    if (n_bytes == 0)
        return;
    std::lock_guard<std::mutex> hold(lock);
    const char *at = static_cast<const char *>(memory);
    auto next = live.upper_bound(at);
    if (next != live.begin()) {
        auto found = std::prev(next);
        if (at + n_bytes <= found->first + found->second.n_bytes)
            return;
    }
    die("%s: %zu bytes at %p are not device memory", what, n_bytes, memory);
}

void open_device_memory()
{
    if (key() >= 0) {
        if (n_open_here++ == 0)
            pkey_set(key(), 0);
        return;
    }
    std::lock_guard<std::mutex> hold(lock);
    if (n_open++ > 0)
        return;
    for (auto &entry : live)
        mprotect(entry.second.pages, entry.second.page_bytes,
                 PROT_READ | PROT_WRITE);
}

void close_device_memory()
{
    if (key() >= 0) {
        if (--n_open_here == 0)
            pkey_set(key(), PKEY_DISABLE_ACCESS);
        return;
    }
    std::lock_guard<std::mutex> hold(lock);
    if (--n_open > 0)
        return;
    for (auto &entry : live)
        mprotect(entry.second.pages, entry.second.page_bytes, PROT_NONE);
}

} // namespace mm_emu

using namespace mm_emu;

cudaError_t cudaMalloc(void **memory, size_t n_bytes)
{
    *memory = nullptr;
    if (n_bytes == 0)
        return cudaSuccess;
    if (n_bytes > std::size_t{1} << 46)
        return cudaErrorMemoryAllocation;
    allocation a;
    a.n_bytes = n_bytes;
    a.page_bytes = round_up(n_bytes, PAGE);
    void *mapped = mmap(nullptr, a.page_bytes + PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    a.pages = static_cast<char *>(mapped);
    mprotect(a.pages + a.page_bytes, PAGE, PROT_NONE);
    char *start = a.pages + a.page_bytes - round_up(n_bytes, ALIGN);
    char *end = a.pages + a.page_bytes;
    std::memset(a.pages, SLACK, static_cast<std::size_t>(start - a.pages));
    std::memset(start + n_bytes, SLACK,
                static_cast<std::size_t>(end - start) - n_bytes);
    poison(start, n_bytes);
    MARK_OUTSIDE(a.pages, static_cast<std::size_t>(start - a.pages));
    MARK_OUTSIDE(start + n_bytes, round_up(n_bytes, ALIGN) - n_bytes);
    std::lock_guard<std::mutex> hold(lock);
    close_pages(a);
    live[start] = a;
    races::watch(a.pages, a.page_bytes, false);
    *memory = start;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    if (!memory)
        return cudaSuccess;
    std::lock_guard<std::mutex> hold(lock);
    auto found = live.find(static_cast<char *>(memory));
    if (found == live.end())
        die("cudaFree of %p, which is no device memory", memory);
    allocation a = found->second;
    live.erase(found);
    open_pages(a);
    MARK_INSIDE(a.pages, a.page_bytes);
    check_slack(static_cast<char *>(memory), a);
    races::forget(a.pages, a.page_bytes);
    munmap(a.pages, a.page_bytes + PAGE);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *n_free, size_t *n_total)
{
    *n_free = 0;
    *n_total = std::size_t{1} << 34;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t n_bytes, unsigned)
{
    *memory = nullptr;
    if (n_bytes > std::size_t{1} << 46 ||
        posix_memalign(memory, PAGE, n_bytes) != 0)
        return cudaErrorMemoryAllocation;
    poison(*memory, n_bytes);
    std::lock_guard<std::mutex> hold(lock);
    pinned.insert(*memory);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    {
        std::lock_guard<std::mutex> hold(lock);
        if (memory && pinned.erase(memory) == 0)
            die("cudaFreeHost of %p, which is no pinned memory", memory);
    }
    std::free(memory);
    return cudaSuccess;
}
