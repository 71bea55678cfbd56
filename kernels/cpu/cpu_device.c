/* The CPU as a device: choice of the instruction set, memory, and streams that
 * run each op at once. */

#include "kernels/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct cpu_device {
    mm_device base;
    int n_threads;
} cpu_device;

#define MM_CPU_TABLE(isa, name) extern const mm_ops mm_cpu_##isa##_ops;
#include "kernels/cpu/tables.h"
#undef MM_CPU_TABLE

typedef struct variant {
    const char *name;
    const mm_ops *ops;
} variant;

static bool usable(const char *name)
{
    (void)name;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(name, "x86-64-v3"))
        return __builtin_cpu_supports("avx2") &&
               __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
               __builtin_cpu_supports("bmi2");
    if (!strcmp(name, "x86-64-v2"))
        return __builtin_cpu_supports("sse4.2");
#endif
    return true;
}

static mm_status choose(const char *wanted, variant *chosen)
{
    const variant tables[] = {
#define MM_CPU_TABLE(isa, name) {name, &mm_cpu_##isa##_ops},
#include "kernels/cpu/tables.h"
#undef MM_CPU_TABLE
    };
    const int n_tables = sizeof tables / sizeof tables[0];
    char known[128] = "";
    for (int i = 0; i < n_tables; i++) {
        bool named = wanted && !strcmp(wanted, tables[i].name);
        if ((named || !wanted) && usable(tables[i].name)) {
            *chosen = tables[i];
            return MM_OK;
        }
        if (named)
            return mm_fail(MM_E_DEVICE, "this processor does not support %s",
                           wanted);
        strncat(known, i ? ", cpu:" : "cpu:", sizeof known - strlen(known) - 1);
        strncat(known, tables[i].name, sizeof known - strlen(known) - 1);
    }
    if (wanted)
        return mm_fail(MM_E_ARG,
                       "no device 'cpu:%s' in this build; it has: "
                       "cpu, %s",
                       wanted, known);
    return mm_fail(MM_E_DEVICE, "this processor supports none of %s", known);
}

static mm_status cpu_open(const char *wanted, int n_threads, mm_device **device)
{
    variant chosen = {NULL, NULL};
    MM_TRY(choose(wanted, &chosen));
    cpu_device *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return mm_fail(MM_E_MEMORY, "no memory for a device");
    cpu->base.backend = &mm_backend_cpu;
    cpu->base.ops = chosen.ops;
    cpu->base.precision = "fp32";
    cpu->base.act_bytes = (int64_t)sizeof(float);
    cpu->base.sums_with_gradients = true;
    cpu->n_threads = n_threads;
    snprintf(cpu->base.description, sizeof cpu->base.description,
             "cpu, %d thread%s, %s", n_threads, n_threads == 1 ? "" : "s",
             chosen.name);
    *device = &cpu->base;
    return MM_OK;
}

static void cpu_close(mm_device *device)
{
    free(device);
}

static mm_status cpu_alloc(mm_device *device, int64_t n_bytes, void **memory)
{
    (void)device;
    /* Large pages save the products most of their address translations. */
    const int64_t page = (int64_t)2 << 20;
    int64_t align = n_bytes >= 2 * page ? page : 64;
    if (n_bytes > INT64_MAX - align)
        return mm_fail(MM_E_MEMORY, "cannot allocate %lld bytes",
                       (long long)n_bytes);
    int64_t rounded = mm_max_i64(align, mm_round_up(n_bytes, align));
    *memory = aligned_alloc((size_t)align, (size_t)rounded);
    if (!*memory)
        return mm_fail(MM_E_MEMORY, "cannot allocate %lld bytes",
                       (long long)n_bytes);
    if (align == page)
        (void)madvise(*memory, (size_t)rounded, MADV_HUGEPAGE);
    return MM_OK;
}

static void cpu_free(mm_device *device, void *memory)
{
    (void)device;
    free(memory);
}

static void cpu_stream_destroy(mm_stream *stream)
{
    mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    free(cpu->scratch);
    free(cpu);
}

static mm_status cpu_stream_create(mm_device *device, bool is_urgent,
                                   mm_stream **stream)
{
    (void)is_urgent; /* ops run in the calling thread */
    mm_cpu_stream *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return mm_fail(MM_E_MEMORY, "no memory for a stream");
    cpu->base.device = device;
    cpu->n_threads = ((const cpu_device *)device)->n_threads;
    *stream = &cpu->base;
    return MM_OK;
}

static mm_status cpu_stream_reserve(mm_stream *stream, int64_t n_bytes)
{
    mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    if (n_bytes <= cpu->scratch_bytes)
        return MM_OK;
    if (n_bytes > INT64_MAX / 2 / cpu->n_threads)
        return mm_fail(MM_E_MEMORY, "cannot reserve %lld bytes of scratch",
                       (long long)n_bytes);
    void *memory = NULL;
    n_bytes = mm_round_up(n_bytes, 64);
    MM_TRY(cpu_alloc(stream->device, n_bytes * cpu->n_threads, &memory));
    free(cpu->scratch);
    cpu->scratch = memory;
    cpu->scratch_bytes = n_bytes;
    return MM_OK;
}

static mm_status cpu_stream_sync(mm_stream *stream)
{
    (void)stream;
    return MM_OK;
}

/* ---- events: an op has finished when its call returns -------------------- */

static void *cpu_stream_native(const mm_stream *stream)
{
    (void)stream;
    return NULL;
}

static mm_status cpu_event_create(mm_device *device, mm_event **event)
{
    *event = calloc(1, sizeof **event);
    if (!*event)
        return mm_fail(MM_E_MEMORY, "no memory for an event");
    (*event)->device = device;
    return MM_OK;
}

static void cpu_event_destroy(mm_event *event)
{
    free(event);
}

static mm_status cpu_event_record(mm_event *event, mm_stream *stream)
{
    (void)event;
    (void)stream;
    return MM_OK;
}

static mm_status cpu_stream_wait(mm_stream *stream, mm_event *event)
{
    (void)stream;
    (void)event;
    return MM_OK;
}

static mm_status cpu_event_sync(mm_event *event)
{
    (void)event;
    return MM_OK;
}

static mm_status cpu_event_is_past(mm_event *event, bool *is_past)
{
    (void)event;
    *is_past = true;
    return MM_OK;
}

static mm_status cpu_copy(mm_stream *stream, void *to, const void *from,
                          int64_t n_bytes)
{
    (void)stream;
    memcpy(to, from, (size_t)n_bytes);
    return MM_OK;
}

const mm_backend mm_backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .host_alloc = cpu_alloc,
    .host_free = cpu_free,
    .stream_create = cpu_stream_create,
    .stream_destroy = cpu_stream_destroy,
    .stream_reserve = cpu_stream_reserve,
    .stream_sync = cpu_stream_sync,
    .stream_native = cpu_stream_native,
    .stream_wait = cpu_stream_wait,
    .event_create = cpu_event_create,
    .event_destroy = cpu_event_destroy,
    .event_record = cpu_event_record,
    .event_sync = cpu_event_sync,
    .event_is_past = cpu_event_is_past,
    .copy_to_device = cpu_copy,
    .copy_to_host = cpu_copy,
};
