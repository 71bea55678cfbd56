/*
 * Runs a kernel's blocks, each block's threads as fibres: a thread runs until
 * it waits for its warp or its block. Every second block runs its threads
 * backwards, so that code without the barrier that it needs goes wrong.
 */
#include "tests/cuda_on_cpu/fibre.h"
#include "tests/cuda_on_cpu/launch.h"
#include "tests/cuda_on_cpu/races.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

namespace mm_emu
{

__thread thread_view *self;

namespace
{

enum : unsigned {
    LANES = 32,
    MAX_THREADS = 1024,
    CANARY_BYTES = 64,
    COPY_BYTES = 16
};

enum class state : std::uint8_t { ready, in_warp, at_barrier, done };

struct copy {
    void *to;
    const void *from;
    bool there;
    unsigned group;
};

struct gpu_thread : thread_view {
    fibre context;
    std::deque<copy> copies; /* under way */
    unsigned group = 0;      /* of the next copy */
    gpu_thread(unsigned number_, void (*main)(void *)) : context(main, this)
    {
        number = number_;
    }
};

struct warp {
    const char *what = nullptr;
    unsigned n_arrived = 0, generation = 0;
    slot slots[2][LANES];
};

struct array {
    const void *tag;
    char *memory;
    std::size_t n_bytes;
};

/** Runs one block at a time; one for each thread of the operating system. */
class block_runner
{
  public:
    ~block_runner()
    {
        drop_arrays();
    }
    void begin_grid(const char *kernel, dim3 grid, dim3 block,
                    std::size_t shared_bytes,
                    const std::function<void()> &work);
    void run(dim3 block_index, bool backwards_);
    void end_grid();

    void wait_for_block(const char *file, int line);
    const slot *wait_for_warp(const char *what, unsigned mask,
                              const void *shown, std::size_t n_bytes,
                              void (*combine)(slot *));
    void *array_of(const void *tag, std::size_t n_bytes);
    void start_copy(const copy &what);
    void commit_copies()
    {
        current->group++;
    }
    void wait_for_copies(unsigned n_left);
    bool running(const char **kernel, dim3 *block, dim3 *thread) const;

  private:
    static void thread_main(void *argument);
    bool run_warp(unsigned index);
    void wait(state why);
    gpu_thread *next_of_warp() const;
    void check_canaries();
    void drop_arrays();
    [[noreturn]] void report_stuck();

    const char *name = "";
    const std::function<void()> *body = nullptr;
    std::vector<std::unique_ptr<gpu_thread>> threads;
    warp warps[MAX_THREADS / LANES];
    fibre scheduler;
    gpu_thread *current = nullptr;
    state now[MAX_THREADS]; /* of each thread */
    bool backwards = false; /* the order in which threads run */
    unsigned n_threads = 0, n_at_barrier = 0;
    const char *barrier_file = nullptr;
    int barrier_line = 0;
    std::size_t dynamic_bytes = 0;
    std::vector<array> arrays;
};

__thread block_runner *runner __attribute__((tls_model("initial-exec")));

const char dynamic_tag = 0;

} // namespace

void block_runner::thread_main(void *argument)
{
    gpu_thread *me = static_cast<gpu_thread *>(argument);
    for (;;) {
        (*runner->body)();
        if (!me->copies.empty())
            die("kernel %s: thread %u ends while it copies", runner->name,
                me->number);
        runner->wait(state::done);
    }
}

void block_runner::begin_grid(const char *kernel, dim3 grid, dim3 block,
                              std::size_t shared_bytes,
                              const std::function<void()> &work)
{
    name = kernel;
    body = &work;
    n_threads = block.x * block.y * block.z;
    dynamic_bytes = shared_bytes;
    while (threads.size() < n_threads)
        threads.push_back(std::make_unique<gpu_thread>(
            static_cast<unsigned>(threads.size()), thread_main));
    for (unsigned i = 0; i < n_threads; i++) {
        gpu_thread *t = threads[i].get();
        t->thread =
            dim3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
        t->block_size = block;
        t->grid_size = grid;
        t->number = i;
    }
}

void block_runner::run(dim3 block_index, bool backwards_)
{
    races::begin_block();
    backwards = backwards_;
    for (array &a : arrays)
        poison(a.memory, a.n_bytes);
    for (unsigned i = 0; i < n_threads; i++) {
        threads[i]->block = block_index;
        threads[i]->syncs = 0;
        now[i] = state::ready;
    }
    const unsigned n_warps = n_threads / LANES;
    for (bool some = true; some;) {
        some = false;
        for (unsigned w = 0; w < n_warps; w++)
            if (run_warp(backwards ? n_warps - 1 - w : w))
                some = true;
    }
    for (unsigned i = 0; i < n_threads; i++)
        if (now[i] != state::done)
            report_stuck();
    check_canaries();
}

/** Until no thread of the warp can go on; false if none could. */
bool block_runner::run_warp(unsigned index)
{
    const unsigned last = index * LANES + (backwards ? 0 : LANES - 1);
    current = threads[last].get();
    current = next_of_warp();
    if (!current)
        return false;
    self = current;
    fibre_switch(&scheduler, &current->context);
    current = nullptr;
    return true;
}

/** The thread of the current one's warp that goes on after it, in turn; NULL if
 * none can. */
gpu_thread *block_runner::next_of_warp() const
{
    const unsigned lane = current->number % LANES;
    const unsigned first = current->number - lane;
    for (unsigned i = 1; i <= LANES; i++) {
        const unsigned next = (backwards ? lane - i : lane + i) % LANES;
        if (now[first + next] == state::ready)
            return threads[first + next].get();
    }
    return nullptr;
}

/** Straight to the next thread of the warp; back to run_warp from the last. */
void block_runner::wait(state why)
{
    gpu_thread *me = current;
    now[me->number] = why;
    gpu_thread *next = next_of_warp();
    if (next)
        self = current = next;
    fibre_switch(&me->context, next ? &next->context : &scheduler);
}

void block_runner::wait_for_block(const char *file, int line)
{
    if (n_at_barrier > 0 && (barrier_line != line || barrier_file != file))
        die("kernel %s: threads of a block wait at %s:%d and at %s:%d", name,
            barrier_file, barrier_line, file, line);
    barrier_file = file;
    barrier_line = line;
    if (++n_at_barrier < n_threads) {
        wait(state::at_barrier);
        return;
    }
    n_at_barrier = 0;
    races::pass_barrier();
    std::fill_n(now, n_threads, state::ready);
}

const slot *block_runner::wait_for_warp(const char *what, unsigned mask,
                                        const void *shown, std::size_t n_bytes,
                                        void (*combine)(slot *))
{
    warp &w = warps[current->number / LANES];
    if (mask != 0xFFFFFFFFu)
        die("kernel %s: %s of part of a warp", name, what);
    if (w.n_arrived > 0 && w.what != what && std::strcmp(w.what, what) != 0)
        die("kernel %s: lanes of a warp wait in %s and in %s", name, w.what,
            what);
    w.what = what;
    slot *slots = w.slots[w.generation % 2];
    if (n_bytes > sizeof(slot))
        die("kernel %s: %s shows %zu bytes", name, what, n_bytes);
    if (n_bytes == sizeof(float))
        std::memcpy(slots[lane()].bytes, shown, sizeof(float));
    else if (n_bytes > 0)
        std::memcpy(slots[lane()].bytes, shown, n_bytes);
    if (++w.n_arrived < LANES) {
        wait(state::in_warp);
        return slots;
    }
    if (combine)
        combine(slots);
    w.n_arrived = 0;
    w.generation++;
    std::fill_n(now + current->number / LANES * LANES, LANES, state::ready);
    return slots;
}

void *block_runner::array_of(const void *tag, std::size_t n_bytes)
{
    for (const array &a : arrays)
        if (a.tag == tag)
            return a.memory;
    if (tag == &dynamic_tag)
        n_bytes = dynamic_bytes;
    const std::size_t align = races::WATCHED ? 4096 : 128;
    void *memory = std::aligned_alloc(
        align, (n_bytes + CANARY_BYTES + align - 1) / align * align);
    if (!memory)
        die("kernel %s: no memory for a shared array", name);
    races::watch(memory, n_bytes, true);
    arrays.push_back({tag, static_cast<char *>(memory), n_bytes});
    poison(memory, n_bytes);
    std::memset(arrays.back().memory + n_bytes, 0xA5, CANARY_BYTES);
    return memory;
}

void block_runner::start_copy(const copy &what)
{
    const std::uintptr_t to = reinterpret_cast<std::uintptr_t>(what.to);
    const std::uintptr_t from = reinterpret_cast<std::uintptr_t>(what.from);
    if (to % COPY_BYTES != 0 || from % COPY_BYTES != 0)
        die("kernel %s: an asynchronous copy that is not aligned", name);
    const char *at = static_cast<const char *>(what.to);
    const bool shared =
        std::any_of(arrays.begin(), arrays.end(), [at](const array &a) {
            return at >= a.memory && at + COPY_BYTES <= a.memory + a.n_bytes;
        });
    if (!shared)
        die("kernel %s: an asynchronous copy not to shared memory", name);
    races::begin_copy(what.to, what.there ? what.from : nullptr, COPY_BYTES);
    poison(what.to, COPY_BYTES);
    current->copies.push_back(what);
    current->copies.back().group = current->group;
}

void block_runner::wait_for_copies(unsigned n_left)
{
    std::deque<copy> &copies = current->copies;
    for (; !copies.empty() && copies.front().group + n_left < current->group;
         copies.pop_front()) {
        const copy &c = copies.front();
        races::end_copy(c.to, c.there ? c.from : nullptr, COPY_BYTES);
        if (c.there)
            std::memcpy(c.to, c.from, COPY_BYTES);
        else
            std::memset(c.to, 0, COPY_BYTES);
    }
}

bool block_runner::running(const char **kernel, dim3 *block, dim3 *thread) const
{
    if (!current)
        return false;
    *kernel = name;
    *block = current->block;
    *thread = current->thread;
    return true;
}

void block_runner::check_canaries()
{
    for (const array &a : arrays)
        for (unsigned i = 0; i < CANARY_BYTES; i++)
            if (static_cast<unsigned char>(a.memory[a.n_bytes + i]) != 0xA5)
                die("kernel %s wrote past a shared array of %zu bytes", name,
                    a.n_bytes);
}

void block_runner::drop_arrays()
{
    for (const array &a : arrays) {
        races::forget(a.memory, a.n_bytes);
        std::free(a.memory);
    }
    arrays.clear();
}

void block_runner::end_grid()
{
    drop_arrays();
}

void block_runner::report_stuck()
{
    unsigned n_done = 0, n_in_warp = 0;
    const char *what = "";
    for (unsigned i = 0; i < n_threads; i++) {
        n_done += now[i] == state::done;
        if (now[i] == state::in_warp) {
            n_in_warp++;
            what = warps[i / LANES].what;
        }
    }
    die("kernel %s: block %u cannot go on: of %u threads %u have ended, %u "
        "wait at %s:%d, %u in %s",
        name, threads[0]->block.x, n_threads, n_done, n_at_barrier,
        barrier_file ? barrier_file : "-", barrier_line, n_in_warp, what);
}

/* ---- what kernels call -------------------------------------------------- */

void barrier(const char *file, int line)
{
    runner->wait_for_block(file, line);
}

const slot *meet(const char *what, unsigned mask, const void *shown,
                 std::size_t n_bytes, void (*combine)(slot *))
{
    return runner->wait_for_warp(what, mask, shown, n_bytes, combine);
}

void *shared_array(const void *tag, std::size_t n_bytes)
{
    return runner->array_of(tag, n_bytes);
}

void *dynamic_shared()
{
    return runner->array_of(&dynamic_tag, 0);
}

void copy_async(void *to_shared, const void *from, bool there)
{
    runner->start_copy({to_shared, from, there, 0});
}

void commit_copies()
{
    runner->commit_copies();
}

void wait_copies(unsigned n_left)
{
    runner->wait_for_copies(n_left);
}

bool running(const char **kernel, dim3 *block, dim3 *thread)
{
    return runner && runner->running(kernel, block, thread);
}

void run_grid(const char *name, dim3 grid, dim3 block, std::size_t shared_bytes,
              const std::function<void()> &body)
{
    static std::atomic<unsigned> n_grids{0};
    const unsigned grid_number = n_grids++;
    const long long n_blocks = static_cast<long long>(grid.x) * grid.y * grid.z;
    races::begin_grid();
#pragma omp parallel if (n_blocks > 1 && !races::WATCHED)
    {
        name_faults();
        static thread_local std::unique_ptr<block_runner> own;
        if (!own)
            own = std::make_unique<block_runner>();
        runner = own.get();
        open_device_memory();
        runner->begin_grid(name, grid, block, shared_bytes, body);
#pragma omp for schedule(dynamic, 16)
        for (long long b = 0; b < n_blocks; b++) {
            unsigned i = static_cast<unsigned>(b);
            runner->run(
                dim3(i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)),
                (grid_number + i) % 2 == 1);
        }
        runner->end_grid();
        close_device_memory();
    }
}

} // namespace mm_emu
