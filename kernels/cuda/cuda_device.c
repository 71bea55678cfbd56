/* A GPU as a device: choice of the GPU, memory, streams, events and copies,
 * with CUDA's errors as mm_status. */

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/product_table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct cuda_device {
    mm_device base;
    int index;
    mm_cuda_precision precision;
    mm_cuda_variants variants;
    int n_sms;
    int64_t shared_bytes;
    int64_t workspace_bytes; /* of products */
    mm_product_table *table; /* of their algorithms, or NULL */
} cuda_device;

static const char *const precision_names[] = {"fp32", "tf32", "bf16"};

mm_status mm_cuda_check(cudaError_t error, const char *file, int line,
                        const char *format, ...)
{
    if (error == cudaSuccess)
        return MM_OK;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* A failed call that is not about the context must not fail the next. */
    (void)cudaGetLastError();
    return mm_fail(error == cudaErrorMemoryAllocation ? MM_E_MEMORY
                                                      : MM_E_DEVICE,
                   "%s: CUDA error %d, %s (%s:%d)", text, (int)error,
                   cudaGetErrorString(error), file, line);
}

/* ---- device ------------------------------------------------------------- */

/** "tf32", "1", "tf32:1": a precision, an index for wrap_index. */
static mm_status parse_variant(const char *variant, cuda_device *cuda)
{
    const char *rest = variant ? variant : "";
    while (*rest) {
        size_t n = strcspn(rest, ":");
        char *end = NULL;
        long index = strtol(rest, &end, 10);
        bool known = n > 0 && end == rest + n && index >= 0 && index < 1024;
        if (known)
            cuda->index = (int)index;
        for (int p = MM_CUDA_FP32; !known && p <= MM_CUDA_BF16; p++)
            if (strlen(precision_names[p]) == n &&
                !strncmp(rest, precision_names[p], n)) {
                cuda->precision = (mm_cuda_precision)p;
                known = true;
            }
        if (!known)
            return mm_fail(
                MM_E_ARG,
                "no device 'cuda:%s'; cuda: may be followed by fp32, "
                "tf32, bf16 or a number",
                variant);
        rest += n;
        rest += *rest == ':';
    }
    return MM_OK;
}

static mm_status fail_old_driver(void)
{
    int has = 0, needed = 0;
    (void)cudaDriverGetVersion(&has);
    (void)cudaRuntimeGetVersion(&needed);
    return mm_fail(
        MM_E_DEVICE,
        "the CUDA driver is too old for this build (it supports CUDA "
        "%d.%d; %d.%d is required)",
        has / 1000, has % 1000 / 10, needed / 1000, needed % 1000 / 10);
}

/** The index wraps around the GPUs that are visible to this process: each rank
 * of a node gets another one where all ranks see all GPUs, and the only one
 * where the batch system makes no other visible. */
static mm_status wrap_index(int *index)
{
    int n_devices = 0;
    cudaError_t error = cudaGetDeviceCount(&n_devices);
    (void)cudaGetLastError();
    if (error == cudaErrorInsufficientDriver)
        return fail_old_driver();
    if (error == cudaErrorNoDevice || (error == cudaSuccess && n_devices == 0))
        return mm_fail(MM_E_DEVICE, "no GPU is visible%s",
                       getenv("CUDA_VISIBLE_DEVICES")
                           ? " (CUDA_VISIBLE_DEVICES is set)"
                           : "");
    MM_TRY(MM_CUDA(error, "counting GPUs"));
    *index %= n_devices;
    return MM_OK;
}

static mm_status start(cuda_device *cuda)
{
    struct cudaDeviceProp prop;
    MM_TRY(wrap_index(&cuda->index));
    MM_TRY(MM_CUDA(cudaSetDevice(cuda->index), "using GPU %d", cuda->index));
    MM_TRY(MM_CUDA(cudaGetDeviceProperties(&prop, cuda->index),
                   "querying the properties of GPU %d", cuda->index));
    MM_TRY(MM_CUDA(cudaDeviceGetPCIBusId(cuda->base.gpu, sizeof cuda->base.gpu,
                                         cuda->index),
                   "querying the PCI bus id of GPU %d", cuda->index));
    if (prop.major < 8)
        return mm_fail(MM_E_DEVICE,
                       "GPU %d, %s, has compute capability %d.%d; at least "
                       "8.0 is required",
                       cuda->index, prop.name, prop.major, prop.minor);
    cuda->n_sms = prop.multiProcessorCount;
    cuda->shared_bytes = (int64_t)prop.sharedMemPerBlockOptin;
    const int workspace_mib[] = {
        [MM_WORKSPACE_DEFAULT] = prop.major >= 9 ? 32 : 4,
        [MM_WORKSPACE_32] = 32,
        [MM_WORKSPACE_64] = 64,
        [MM_WORKSPACE_128] = 128,
    };
    cuda->workspace_bytes = (int64_t)workspace_mib[cuda->variants.workspace]
                            << 20;
    const char *variants = mm_cuda_variants_text();
    snprintf(cuda->base.description, sizeof cuda->base.description,
             "cuda:%d, %.60s, %.0f GiB%s%.100s", cuda->index, prop.name,
             (double)prop.totalGlobalMem / 0x1p30,
             *variants ? ", variants " : "", variants);
    return MM_OK;
}

static void cuda_close(mm_device *device)
{
    mm_product_table_destroy(&((cuda_device *)device)->table);
    free(device);
}

static mm_status cuda_open(const char *variant, int n_threads,
                           mm_device **device)
{
    (void)n_threads;
    cuda_device *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return mm_fail(MM_E_MEMORY, "no memory for a device");
    cuda->base.backend = &mm_backend_cuda;
    cuda->base.ops = &mm_cuda_ops;
    mm_status st = parse_variant(variant, cuda);
    cuda->base.precision = precision_names[cuda->precision];
    cuda->base.act_bytes = cuda->precision == MM_CUDA_BF16 ? 2 : 4;
    if (st == MM_OK)
        st = mm_cuda_variants_read(&cuda->variants);
    cuda->base.sums_with_gradients =
        cuda->variants.bias_sums != MM_BIAS_SUMS_LIBRARY;
    if (st == MM_OK && cuda->variants.algorithms == MM_ALGORITHMS_TABLE)
        st = mm_product_table_create(&cuda->table);
    if (st == MM_OK)
        st = start(cuda);
    if (st != MM_OK) {
        cuda_close(&cuda->base);
        return st;
    }
    *device = &cuda->base;
    return MM_OK;
}

static mm_status use(const mm_device *device)
{
    int index = ((const cuda_device *)device)->index;
    return MM_CUDA(cudaSetDevice(index), "using GPU %d", index);
}

static mm_status fail_full(int64_t n_bytes)
{
    size_t n_free = 0, n_total = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&n_free, &n_total);
    return mm_fail(MM_E_MEMORY,
                   "cannot allocate %.2f GiB on the GPU: %.2f of its %.2f GiB "
                   "are free",
                   (double)n_bytes / 0x1p30, (double)n_free / 0x1p30,
                   (double)n_total / 0x1p30);
}

static mm_status cuda_alloc(mm_device *device, int64_t n_bytes, void **memory)
{
    MM_TRY(use(device));
    size_t size = n_bytes > 0 ? (size_t)n_bytes : 1;
    cudaError_t error = cudaMalloc(memory, size);
    if (error == cudaErrorMemoryAllocation)
        return fail_full(n_bytes);
    return MM_CUDA(error, "allocating %lld bytes on the GPU",
                   (long long)n_bytes);
}

static void cuda_free(mm_device *device, void *memory)
{
    (void)device;
    (void)cudaFree(memory);
}

static mm_status cuda_host_alloc(mm_device *device, int64_t n_bytes,
                                 void **memory)
{
    MM_TRY(use(device));
    size_t size = n_bytes > 0 ? (size_t)n_bytes : 1;
    return MM_CUDA(cudaHostAlloc(memory, size, cudaHostAllocDefault),
                   "cannot allocate %lld bytes of pinned host memory",
                   (long long)n_bytes);
}

static void cuda_host_free(mm_device *device, void *memory)
{
    (void)device;
    (void)cudaFreeHost(memory);
}

/* ---- streams ------------------------------------------------------------ */

static void cuda_stream_destroy(mm_stream *stream)
{
    mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    if (cuda->stream)
        (void)cudaStreamDestroy(cuda->stream);
    mm_cuda_products_destroy(&cuda->products);
    (void)cudaFree(cuda->partials);
    (void)cudaFree(cuda->scratch);
    if (cuda->fault)
        (void)cudaFreeHost(cuda->fault);
    free(cuda);
}

static mm_status start_stream(mm_cuda_stream *cuda, const cuda_device *on,
                              bool is_urgent)
{
    int least = 0, greatest = 0;
    void *fault = NULL;
    MM_TRY(use(&on->base));
    MM_TRY(MM_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                   "making a stream"));
    MM_TRY(MM_CUDA(cudaStreamCreateWithPriority(&cuda->stream,
                                                cudaStreamNonBlocking,
                                                is_urgent ? greatest : least),
                   "making a stream"));
    MM_TRY(
        MM_CUDA(cudaHostAlloc(&fault, sizeof *cuda->fault, cudaHostAllocMapped),
                "making a stream"));
    cuda->fault = fault;
    memset(cuda->fault, 0, sizeof *cuda->fault);
    MM_TRY(MM_CUDA(cudaMalloc(&cuda->partials, MM_CUDA_PARTIAL_BYTES),
                   "making a stream"));
    return mm_cuda_products_create(on->workspace_bytes, on->table,
                                   &cuda->products);
}

static mm_status cuda_stream_create(mm_device *device, bool is_urgent,
                                    mm_stream **stream)
{
    const cuda_device *on = (const cuda_device *)device;
    mm_cuda_stream *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return mm_fail(MM_E_MEMORY, "no memory for a stream");
    cuda->base.device = device;
    cuda->precision = on->precision;
    cuda->variants = on->variants;
    cuda->n_sms = on->n_sms;
    cuda->shared_bytes = on->shared_bytes;
    mm_status st = start_stream(cuda, on, is_urgent);
    if (st != MM_OK) {
        cuda_stream_destroy(&cuda->base);
        return st;
    }
    *stream = &cuda->base;
    return MM_OK;
}

static mm_status report(mm_cuda_fault *fault)
{
    mm_cuda_fault found = *fault;
    memset(fault, 0, sizeof *fault);
    if (found.kind == MM_CUDA_BAD_LABEL)
        return mm_fail(MM_E_ARG,
                       "label %d of image %lld is not one of %lld classes",
                       (int)found.label, (long long)found.image,
                       (long long)found.n_classes);
    return MM_OK;
}

static mm_status cuda_stream_sync(mm_stream *stream)
{
    mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    MM_TRY(MM_CUDA(cudaStreamSynchronize(cuda->stream), "waiting for the GPU"));
    return report(cuda->fault);
}

static mm_status cuda_stream_reserve(mm_stream *stream, int64_t n_bytes)
{
    mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    if (n_bytes <= cuda->scratch_bytes)
        return MM_OK;
    void *memory = NULL;
    MM_TRY(cuda_stream_sync(stream)); /* the old scratch may be in use */
    MM_TRY(cuda_alloc(stream->device, n_bytes, &memory));
    (void)cudaFree(cuda->scratch);
    cuda->scratch = memory;
    cuda->scratch_bytes = n_bytes;
    return MM_OK;
}

static void *cuda_stream_native(const mm_stream *stream)
{
    return ((const mm_cuda_stream *)stream)->stream;
}

/* ---- events ------------------------------------------------------------- */

typedef struct cuda_event {
    mm_event base;
    cudaEvent_t event;
} cuda_event;

static cudaEvent_t native_event(const mm_event *event)
{
    return ((const cuda_event *)event)->event;
}

static mm_status cuda_event_create(mm_device *device, mm_event **event)
{
    MM_TRY(use(device));
    cuda_event *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return mm_fail(MM_E_MEMORY, "no memory for an event");
    cuda->base.device = device;
    /* Without a time stamp, recording is cheapest. */
    mm_status st =
        MM_CUDA(cudaEventCreateWithFlags(&cuda->event, cudaEventDisableTiming),
                "making an event");
    if (st != MM_OK) {
        free(cuda);
        return st;
    }
    *event = &cuda->base;
    return MM_OK;
}

static void cuda_event_destroy(mm_event *event)
{
    (void)cudaEventDestroy(native_event(event));
    free(event);
}

static mm_status cuda_event_record(mm_event *event, mm_stream *stream)
{
    return MM_CUDA(
        cudaEventRecord(native_event(event), mm_cuda_stream_of(stream)->stream),
        "recording an event");
}

static mm_status cuda_stream_wait(mm_stream *stream, mm_event *event)
{
    return MM_CUDA(cudaStreamWaitEvent(mm_cuda_stream_of(stream)->stream,
                                       native_event(event), 0),
                   "making a stream wait for another");
}

static mm_status cuda_event_sync(mm_event *event)
{
    return MM_CUDA(cudaEventSynchronize(native_event(event)),
                   "waiting for an event on the GPU");
}

static mm_status cuda_event_is_past(mm_event *event, bool *is_past)
{
    cudaError_t error = cudaEventQuery(native_event(event));
    if (error == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* which keeps it like a failure */
        return MM_OK;
    }
    *is_past = error == cudaSuccess;
    return MM_CUDA(error, "querying an event on the GPU");
}

/* ---- copies -------------------------------------------------------------- */

static mm_status cuda_copy_to_device(mm_stream *stream, void *device_memory,
                                     const void *host, int64_t n_bytes)
{
    return MM_CUDA(cudaMemcpyAsync(device_memory, host, (size_t)n_bytes,
                                   cudaMemcpyHostToDevice,
                                   mm_cuda_stream_of(stream)->stream),
                   "copying %lld bytes to the GPU", (long long)n_bytes);
}

static mm_status cuda_copy_to_host(mm_stream *stream, void *host,
                                   const void *device_memory, int64_t n_bytes)
{
    return MM_CUDA(cudaMemcpyAsync(host, device_memory, (size_t)n_bytes,
                                   cudaMemcpyDeviceToHost,
                                   mm_cuda_stream_of(stream)->stream),
                   "copying %lld bytes from the GPU", (long long)n_bytes);
}

const mm_backend mm_backend_cuda = {
    .name = "cuda",
    .own_memory = true,
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_reserve = cuda_stream_reserve,
    .stream_sync = cuda_stream_sync,
    .stream_native = cuda_stream_native,
    .stream_wait = cuda_stream_wait,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_sync = cuda_event_sync,
    .event_is_past = cuda_event_is_past,
    .copy_to_device = cuda_copy_to_device,
    .copy_to_host = cuda_copy_to_host,
};
