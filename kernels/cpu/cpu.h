#ifndef MAGMAX_KERNELS_CPU_CPU_H
#define MAGMAX_KERNELS_CPU_CPU_H

#include "kernels/backend.h"

/*
 * Shared by the CPU ops. Every op file is compiled once for each instruction
 * set, with MM_CPU_ISA naming it; MM_CPU(x) is x under that instruction set's
 * prefix, so that all versions live in one program.
 */

#define MM_CPU_PASTE2(isa, name) mm_cpu_##isa##_##name
#define MM_CPU_PASTE(isa, name) MM_CPU_PASTE2(isa, name)
#ifdef MM_CPU_ISA
#define MM_CPU(name) MM_CPU_PASTE(MM_CPU_ISA, name)

#define MM_OP(op, args) mm_status MM_CPU(op) args;
#include "kernels/ops_list.h"
#undef MM_OP
#endif

typedef struct mm_cpu_stream {
    mm_stream base;
    int n_threads;
    char *scratch; /* [n_threads][scratch_bytes], mm_stream_reserve */
    int64_t scratch_bytes;
} mm_cpu_stream;

static inline mm_cpu_stream *mm_cpu_stream_of(mm_stream *stream)
{
    return (mm_cpu_stream *)stream;
}

/** Here activations are fp32. */
#define MM_CPU_FLOATS(act) \
    _Generic((act), mm_act *: (float *)(act), const mm_act *: (const float *)(act))

/** Refuse invalid arguments; the text names the condition. */
#define MM_CPU_REQUIRE(op, condition)                                   \
    do {                                                                \
        if (!(condition))                                               \
            return mm_fail(MM_E_ARG, "op %s needs %s", op, #condition); \
    } while (0)

/** Refuse where mm_stream_reserve has not been given enough. */
#define MM_CPU_REQUIRE_SCRATCH(op, cpu, n_bytes)                 \
    do {                                                         \
        if ((cpu)->scratch_bytes < (n_bytes))                    \
            return mm_fail(MM_E_ARG,                             \
                           "op %s needs %lld bytes of scratch, " \
                           "the stream has %lld",                \
                           op, (long long)(n_bytes),             \
                           (long long)(cpu)->scratch_bytes);     \
    } while (0)

/** Below this many units of work (about one float read, computed and written)
 * starting a team of threads costs more than it saves. */
enum { MM_CPU_TEAM_WORK = 24 << 10 };

/** How many threads to start for `work` units. */
static inline int mm_cpu_team(const mm_cpu_stream *cpu, int64_t work)
{
    return work < MM_CPU_TEAM_WORK ? 1 : cpu->n_threads;
}

/** Between pieces of work, on every thread: the calling thread lets the
 * transport move after about each half millisecond of multiply-adds. */
enum { MM_CPU_POLL_WORK = 16 << 20 };

static inline void mm_cpu_poll(mm_stream *stream, int thread, int64_t *done,
                               int64_t multiply_adds)
{
    if (thread != 0 || !stream->poll)
        return;
    *done += multiply_adds;
    if (*done < MM_CPU_POLL_WORK)
        return;
    *done = 0;
    stream->poll(stream->poll_context);
}

static inline int64_t mm_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t mm_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t mm_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t mm_round_up(int64_t a, int64_t b)
{
    return mm_ceil_div(a, b) * b;
}

#endif
