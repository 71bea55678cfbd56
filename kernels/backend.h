#ifndef MAGMAX_KERNELS_BACKEND_H
#define MAGMAX_KERNELS_BACKEND_H

#include "kernels/ops.h"

/*
 * What a backend gives kernels/device.c; private to kernels/. Device, stream
 * and event structs of a backend begin with the ones here.
 */

typedef struct mm_backend mm_backend;

struct mm_device {
    const mm_backend *backend;
    const mm_ops *ops;
    int64_t act_bytes;        /* of an mm_act */
    bool sums_with_gradients; /* mm_device_sums_with_gradients */
    const char *precision;    /* mm_device_precision */
    char gpu[32];             /* mm_device_gpu */
    char description[256];
};

struct mm_stream {
    mm_device *device;
    void (*poll)(void *context);
    void *poll_context;
};

struct mm_event {
    mm_device *device;
};

/** `variant` is what follows "name:" in the name given to mm_device_open, or
 * NULL. The other members do what device.h says of the functions that call
 * them. */
struct mm_backend {
    const char *name;
    bool own_memory; /* host code may not follow its pointers */
    mm_status (*open)(const char *variant, int n_threads, mm_device **device);
    void (*close)(mm_device *device);
    mm_status (*alloc)(mm_device *device, int64_t n_bytes, void **memory);
    void (*free)(mm_device *device, void *memory);
    mm_status (*host_alloc)(mm_device *device, int64_t n_bytes, void **memory);
    void (*host_free)(mm_device *device, void *memory);
    mm_status (*stream_create)(mm_device *device, bool is_urgent,
                               mm_stream **stream);
    void (*stream_destroy)(mm_stream *stream);
    mm_status (*stream_reserve)(mm_stream *stream, int64_t n_bytes);
    mm_status (*stream_sync)(mm_stream *stream);
    void *(*stream_native)(const mm_stream *stream);
    mm_status (*stream_wait)(mm_stream *stream, mm_event *event);
    mm_status (*event_create)(mm_device *device, mm_event **event);
    void (*event_destroy)(mm_event *event);
    mm_status (*event_record)(mm_event *event, mm_stream *stream);
    mm_status (*event_sync)(mm_event *event);
    mm_status (*event_is_past)(mm_event *event, bool *is_past);
    mm_status (*copy_to_device)(mm_stream *stream, void *device_memory,
                                const void *host, int64_t n_bytes);
    mm_status (*copy_to_host)(mm_stream *stream, void *host,
                              const void *device_memory, int64_t n_bytes);
};

extern const mm_backend mm_backend_cpu;

#endif
