/*
 * races.h, and the functions that instrumented kernels call at each access. A
 * cell for every two bytes records which thread wrote them last and which have
 * read them.
 */
#include "tests/cuda_on_cpu/races.h"

#ifdef MM_EMU_RACES

#include "tests/cuda_on_cpu/launch.h"

#include <cstdint>
#include <dlfcn.h>
#include <sys/mman.h>

namespace mm_emu::races
{

namespace
{

constexpr unsigned PAGE_BITS = 12, CELL_BYTES = 2;
constexpr std::size_t PAGE = std::size_t{1} << PAGE_BITS;
constexpr std::size_t N_PAGES = std::size_t{1} << (47 - PAGE_BITS);

/** One thread's access. Epochs count over everything; 0 is none. */
struct access {
    std::uint32_t epoch;
    std::uint32_t thread : 10, syncs : 21, copying : 1;
};

/** Kept of the reads: the first of a grid, which shows other blocks, the
 * last, and the last of another thread than that. */
struct cell {
    access written, first_read, last_read, other_read;
};

struct page {
    bool shared;
    cell *cells;
};

/** By address; nearly all of it is never touched. */
page *pages()
{
    static page *all = nullptr;
    if (!all) {
        void *mapped =
            mmap(nullptr, N_PAGES * sizeof(page), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED)
            die("no memory to watch for races");
        all = static_cast<page *>(mapped);
    }
    return all;
}

page *const all_pages = pages();

/* Blocks run one after another. An epoch begins with each grid, block and
 * barrier. */
std::uint32_t epoch = 1, grid_epoch = 1, block_epoch = 1;

std::size_t cells_of(std::size_t n_pages)
{
    return n_pages * (PAGE / CELL_BYTES) * sizeof(cell);
}

access now()
{
    return {epoch, self->number & 1023u, self->syncs & 0x1FFFFFu, 0};
}

/** Is nothing between what was done and what this thread does now? */
bool races_with(const access &before, const access &me, bool shared)
{
    if (before.epoch < (shared ? block_epoch : grid_epoch))
        return false;
    if (before.epoch < block_epoch)
        return true; /* of another block */
    if (before.epoch < me.epoch || before.thread == me.thread)
        return false;
    return before.thread / 32 != me.thread / 32 || before.syncs >= me.syncs;
}

[[noreturn]] void report(const void *at, bool writes, const access &before,
                         bool wrote, bool shared, const void *caller)
{
    const char *kernel = "?";
    dim3 block, thread;
    running(&kernel, &block, &thread);
    Dl_info where = {};
    dladdr(caller, &where);
    die("kernel %s: block %u: thread %u %s %s memory (%p) that %s %u%s %s; no "
        "barrier is between them (%s+%#tx)",
        kernel, block.x, self->number, writes ? "writes" : "reads",
        shared ? "shared" : "device", at,
        before.epoch < block_epoch ? "another block's thread" : "thread",
        static_cast<unsigned>(before.thread),
        before.copying ? ", copying," : "", wrote ? "writes" : "reads",
        where.dli_fname ? where.dli_fname : "?",
        static_cast<const char *>(caller) -
            static_cast<const char *>(where.dli_fbase));
}

void read_cell(cell &c, const access &me, const void *at, bool shared,
               const void *caller)
{
    if (c.written.copying || races_with(c.written, me, shared))
        report(at, false, c.written, true, shared, caller);
    if (c.first_read.epoch < (shared ? block_epoch : grid_epoch))
        c.first_read = me;
    if (c.last_read.thread != me.thread || c.last_read.epoch < block_epoch)
        c.other_read = c.last_read;
    c.last_read = me;
}

void write_cell(cell &c, const access &me, const void *at, bool shared,
                const void *caller)
{
    if (c.written.copying || races_with(c.written, me, shared))
        report(at, true, c.written, true, shared, caller);
    for (const access &read : {c.first_read, c.last_read, c.other_read})
        if (races_with(read, me, shared))
            report(at, true, read, false, shared, caller);
    c.written = me;
}

/** f(cell, its address, is it shared, this access) of all that are watched.
 * Only kernels touch those: a launcher has no `self`. */
template <typename F>
inline void each_cell(const void *memory, std::size_t n_bytes, F f)
{
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(memory);
    const page &p = all_pages[first >> PAGE_BITS];
    if (!p.cells)
        return;
    const access me = now();
    cell *c =
        p.cells + first % PAGE / CELL_BYTES; /* goes on in the next page */
    for (std::uintptr_t at = first / CELL_BYTES * CELL_BYTES;
         at < first + n_bytes; at += CELL_BYTES)
        f(*c++, reinterpret_cast<const void *>(at), p.shared, me);
}

void on_read(const void *memory, std::size_t n_bytes, const void *caller)
{
    each_cell(memory, n_bytes,
              [=](cell &c, const void *at, bool shared, const access &me) {
                  read_cell(c, me, at, shared, caller);
              });
}

void on_write(const void *memory, std::size_t n_bytes, const void *caller)
{
    each_cell(memory, n_bytes,
              [=](cell &c, const void *at, bool shared, const access &me) {
                  write_cell(c, me, at, shared, caller);
              });
}

} // namespace

void watch(const void *memory, std::size_t n_bytes, bool shared)
{
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(memory);
    const std::uintptr_t begin = first >> PAGE_BITS;
    const std::uintptr_t end = (first + n_bytes + PAGE - 1) >> PAGE_BITS;
    void *cells = mmap(nullptr, cells_of(end - begin), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cells == MAP_FAILED)
        die("no memory to watch %zu bytes for races", n_bytes);
    for (std::uintptr_t i = begin; i < end; i++)
        all_pages[i] = {shared, static_cast<cell *>(cells) +
                                    (i - begin) * (PAGE / CELL_BYTES)};
}

void forget(const void *memory, std::size_t n_bytes)
{
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(memory);
    const std::uintptr_t begin = first >> PAGE_BITS;
    const std::uintptr_t end = (first + n_bytes + PAGE - 1) >> PAGE_BITS;
    munmap(all_pages[begin].cells, cells_of(end - begin));
    for (std::uintptr_t i = begin; i < end; i++)
        all_pages[i] = {};
}

void begin_grid()
{
    grid_epoch = ++epoch;
}

void begin_block()
{
    block_epoch = ++epoch;
}

void pass_barrier()
{
    epoch++;
}

void begin_copy(const void *to, const void *from, std::size_t n_bytes)
{
    const void *caller = __builtin_return_address(0);
    if (from)
        on_read(from, n_bytes, caller);
    on_write(to, n_bytes, caller);
    each_cell(to, n_bytes, [](cell &c, const void *, bool, const access &) {
        c.written.copying = 1;
    });
}

void end_copy(const void *to, const void *from, std::size_t n_bytes)
{
    const void *caller = __builtin_return_address(0);
    if (from)
        on_read(from, n_bytes, caller);
    each_cell(to, n_bytes, [](cell &c, const void *, bool, const access &) {
        c.written.copying = 0;
    });
    on_write(to, n_bytes, caller);
}

} // namespace mm_emu::races

/* ---- what the compiler's instrumentation calls --------------------------- */

using namespace mm_emu::races;

#define READS_AND_WRITES(n)                             \
    extern "C" void __tsan_read##n(void *at)            \
    {                                                   \
        on_read(at, n, __builtin_return_address(0));    \
    }                                                   \
    extern "C" void __tsan_write##n(void *at)           \
    {                                                   \
        on_write(at, n, __builtin_return_address(0));   \
    }                                                   \
    extern "C" void __tsan_unaligned_read##n(void *at)  \
    {                                                   \
        on_read(at, n, __builtin_return_address(0));    \
    }                                                   \
    extern "C" void __tsan_unaligned_write##n(void *at) \
    {                                                   \
        on_write(at, n, __builtin_return_address(0));   \
    }

READS_AND_WRITES(1)
READS_AND_WRITES(2)
READS_AND_WRITES(4)
READS_AND_WRITES(8)
READS_AND_WRITES(16)

extern "C" void __tsan_read_range(void *at, unsigned long n_bytes)
{
    on_read(at, n_bytes, __builtin_return_address(0));
}

extern "C" void __tsan_write_range(void *at, unsigned long n_bytes)
{
    on_write(at, n_bytes, __builtin_return_address(0));
}

extern "C" void __tsan_init()
{
}

extern "C" void __tsan_func_entry(void *)
{
}

extern "C" void __tsan_func_exit(void *)
{
}

extern "C" void __tsan_vptr_update(void **, void *)
{
}

extern "C" void __tsan_vptr_read(void **)
{
}

extern "C" int __tsan_atomic32_fetch_add(volatile int *at, int value, int)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

extern "C" int __tsan_atomic32_compare_exchange_strong(volatile int *at,
                                                       int *expected,
                                                       int wanted, int, int)
{
    return __atomic_compare_exchange_n(at, expected, wanted, false,
                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

#endif
