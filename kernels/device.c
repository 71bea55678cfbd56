/* Devices, streams and events by backend: names are resolved and arguments
 * checked here, the work is the backend's. */

#include "kernels/backend.h"
#include "kernels/load_cuda.h"

#include <stdio.h>
#include <string.h>

mm_status mm_device_open(const char *name, int n_threads, mm_device **device)
{
    if (!name || !device || n_threads < 1)
        return mm_fail(MM_E_ARG, "opening a device needs a name and at least "
                                 "one thread");
    *device = NULL;
    size_t n_chars = strcspn(name, ":");
    const char *variant = name[n_chars] ? name + n_chars + 1 : NULL;
    const mm_backend *backend = NULL;
    if (n_chars == 3 && !strncmp(name, "cpu", n_chars))
        backend = &mm_backend_cpu;
    else if (n_chars == 4 && !strncmp(name, "cuda", n_chars))
        MM_TRY(mm_module_open_cuda(&backend));
    else
        return mm_fail(MM_E_ARG, "no device '%s'; there are: cpu, cuda", name);
    return backend->open(variant, n_threads, device);
}

/** The CPU, as what `why`, where there is one, made of "auto". */
static mm_status choose_cpu(const char *precision, const char *why,
                            int n_threads, mm_device **device)
{
    if (precision && strcmp(precision, "fp32") != 0)
        return mm_fail(MM_E_ARG,
                       "the CPU computes in fp32, and --precision %s needs a "
                       "GPU%s%s",
                       precision, why ? "; there is none: " : "",
                       why ? why : "");
    MM_TRY(mm_device_open("cpu", n_threads, device));
    char *text = (*device)->description;
    size_t n = strlen(text);
    if (why)
        snprintf(text + n, sizeof(*device)->description - n, " (%s)", why);
    return MM_OK;
}

mm_status mm_device_choose(const char *name, const char *precision,
                           int n_threads, int node_rank, mm_device **device)
{
    char gpu[32], why[128];
    const bool may_be_cpu = !strcmp(name, "auto");
    *device = NULL;
    if (!strcmp(name, "cpu"))
        return choose_cpu(precision, NULL, n_threads, device);
    if (strcmp(name, "cuda") != 0 && !may_be_cpu)
        return mm_device_open(name, n_threads, device);
    snprintf(gpu, sizeof gpu, "cuda:%.8s:%d", precision ? precision : "bf16",
             node_rank);
    mm_status st = mm_device_open(gpu, n_threads, device);
    if (st != MM_E_DEVICE || !may_be_cpu)
        return st;
    snprintf(why, sizeof why, "%s", mm_fail_message());
    return choose_cpu(precision, why, n_threads, device);
}

void mm_device_close(mm_device **device)
{
    if (*device)
        (*device)->backend->close(*device);
    *device = NULL;
}

const mm_ops *mm_device_ops(const mm_device *device)
{
    return device->ops;
}

bool mm_device_has_own_memory(const mm_device *device)
{
    return device->backend->own_memory;
}

int64_t mm_device_act_bytes(const mm_device *device)
{
    return device->act_bytes;
}

const char *mm_device_precision(const mm_device *device)
{
    return device->precision;
}

bool mm_device_sums_with_gradients(const mm_device *device)
{
    return device->sums_with_gradients;
}

const char *mm_device_gpu(const mm_device *device)
{
    return device->gpu;
}

const char *mm_device_describe(const mm_device *device)
{
    return device->description;
}

mm_status mm_device_alloc(mm_device *device, int64_t n_bytes, void **memory)
{
    *memory = NULL;
    if (n_bytes < 0)
        return mm_fail(MM_E_ARG, "cannot allocate %lld bytes",
                       (long long)n_bytes);
    return device->backend->alloc(device, n_bytes, memory);
}

void mm_device_free(mm_device *device, void **memory)
{
    if (*memory)
        device->backend->free(device, *memory);
    *memory = NULL;
}

mm_status mm_host_alloc(mm_device *device, int64_t n_bytes, void **memory)
{
    *memory = NULL;
    if (n_bytes < 0)
        return mm_fail(MM_E_ARG, "cannot allocate %lld bytes for copies",
                       (long long)n_bytes);
    return device->backend->host_alloc(device, n_bytes, memory);
}

void mm_host_free(mm_device *device, void **memory)
{
    if (*memory)
        device->backend->host_free(device, *memory);
    *memory = NULL;
}

mm_status mm_stream_create(mm_device *device, mm_stream **stream)
{
    *stream = NULL;
    return device->backend->stream_create(device, false, stream);
}

mm_status mm_stream_create_urgent(mm_device *device, mm_stream **stream)
{
    *stream = NULL;
    return device->backend->stream_create(device, true, stream);
}

void mm_stream_destroy(mm_stream **stream)
{
    if (*stream)
        (*stream)->device->backend->stream_destroy(*stream);
    *stream = NULL;
}

mm_status mm_stream_reserve(mm_stream *stream, int64_t n_bytes)
{
    if (n_bytes < 0)
        return mm_fail(MM_E_ARG, "cannot reserve %lld bytes of scratch",
                       (long long)n_bytes);
    return stream->device->backend->stream_reserve(stream, n_bytes);
}

void mm_stream_set_poll(mm_stream *stream, void (*poll)(void *context),
                        void *context)
{
    stream->poll = poll;
    stream->poll_context = context;
}

mm_status mm_stream_sync(mm_stream *stream)
{
    return stream->device->backend->stream_sync(stream);
}

void *mm_stream_native(const mm_stream *stream)
{
    return stream->device->backend->stream_native(stream);
}

mm_status mm_event_create(mm_device *device, mm_event **event)
{
    *event = NULL;
    return device->backend->event_create(device, event);
}

void mm_event_destroy(mm_event **event)
{
    if (*event)
        (*event)->device->backend->event_destroy(*event);
    *event = NULL;
}

mm_status mm_event_record(mm_event *event, mm_stream *stream)
{
    if (event->device != stream->device)
        return mm_fail(MM_E_ARG, "an event of another device than the stream");
    return event->device->backend->event_record(event, stream);
}

mm_status mm_stream_wait(mm_stream *stream, mm_event *event)
{
    if (event->device != stream->device)
        return mm_fail(MM_E_ARG, "an event of another device than the stream");
    return stream->device->backend->stream_wait(stream, event);
}

mm_status mm_event_sync(mm_event *event)
{
    return event->device->backend->event_sync(event);
}

mm_status mm_event_is_past(mm_event *event, bool *is_past)
{
    *is_past = false;
    return event->device->backend->event_is_past(event, is_past);
}

mm_status mm_copy_to_device(mm_stream *stream, void *device_memory,
                            const void *host, int64_t n_bytes)
{
    if (n_bytes == 0)
        return MM_OK;
    if (!device_memory || !host || n_bytes < 0)
        return mm_fail(MM_E_ARG, "copy to device: NULL or negative size");
    return stream->device->backend->copy_to_device(stream, device_memory, host,
                                                   n_bytes);
}

mm_status mm_copy_to_host(mm_stream *stream, void *host,
                          const void *device_memory, int64_t n_bytes)
{
    if (n_bytes == 0)
        return MM_OK;
    if (!device_memory || !host || n_bytes < 0)
        return mm_fail(MM_E_ARG, "copy to host: NULL or negative size");
    return stream->device->backend->copy_to_host(stream, host, device_memory,
                                                 n_bytes);
}
