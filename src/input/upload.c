/* Copying batches to a device on a stream of their own, through two buffers in
 * turn. */

#include "src/input/upload.h"

#include "src/base/arena.h"

#include <stdlib.h>

enum { N_BUFFERS = 2 };

struct mm_upload {
    mm_device *device;
    bool in_place;
    int64_t n_bytes; /* of a buffer */
    int current;
    mm_stream *stream;
    mm_event *copied;
    struct {
        void *memory;
        mm_event *used;
    } buffers[N_BUFFERS];
};

/** Room for the gaps that align the parts. */
static int64_t buffer_bytes(int64_t n_bytes)
{
    mm_arena arena = {0};
    mm_arena_take(&arena, n_bytes);
    return arena.used + (MM_UPLOAD_PARTS - 1) * 64;
}

int64_t mm_upload_n_bytes(const mm_device *device, int64_t n_bytes)
{
    return mm_device_has_own_memory(device) ? N_BUFFERS * buffer_bytes(n_bytes)
                                            : 0;
}

static mm_status create_buffers(mm_upload *u)
{
    MM_TRY(mm_stream_create(u->device, &u->stream));
    MM_TRY(mm_event_create(u->device, &u->copied));
    for (int i = 0; i < N_BUFFERS; i++) {
        MM_TRY(mm_event_create(u->device, &u->buffers[i].used));
        MM_TRY(mm_device_alloc(u->device, u->n_bytes, &u->buffers[i].memory));
    }
    return MM_OK;
}

mm_status mm_upload_create(mm_device *device, int64_t n_bytes,
                           mm_upload **upload)
{
    mm_upload *u = calloc(1, sizeof *u);
    *upload = u;
    if (!u)
        return mm_fail(MM_E_MEMORY, "no memory for an upload");
    u->device = device;
    u->in_place = !mm_device_has_own_memory(device);
    u->n_bytes = buffer_bytes(n_bytes);
    mm_status st = u->in_place ? MM_OK : create_buffers(u);
    if (st != MM_OK)
        mm_upload_destroy(upload);
    return st;
}

void mm_upload_destroy(mm_upload **upload)
{
    mm_upload *u = *upload;
    if (!u)
        return;
    if (u->stream)
        (void)mm_stream_sync(u->stream);
    for (int i = 0; i < N_BUFFERS; i++) {
        mm_device_free(u->device, &u->buffers[i].memory);
        mm_event_destroy(&u->buffers[i].used);
    }
    mm_event_destroy(&u->copied);
    mm_stream_destroy(&u->stream);
    free(u);
    *upload = NULL;
}

mm_status mm_upload_start(mm_upload *u, mm_stream *stream,
                          mm_upload_part *parts, int n_parts)
{
    MM_ASSERT(n_parts <= MM_UPLOAD_PARTS);
    if (u->in_place) {
        for (int i = 0; i < n_parts; i++)
            parts[i].device = parts[i].host;
        return MM_OK;
    }
    u->current = (u->current + 1) % N_BUFFERS;
    mm_arena arena = {.base = u->buffers[u->current].memory};
    MM_TRY(mm_stream_wait(u->stream, u->buffers[u->current].used));
    for (int i = 0; i < n_parts; i++) {
        void *to = mm_arena_take(&arena, parts[i].n_bytes);
        MM_TRY(
            mm_copy_to_device(u->stream, to, parts[i].host, parts[i].n_bytes));
        parts[i].device = to;
    }
    MM_ASSERT(arena.used <= u->n_bytes);
    MM_TRY(mm_event_record(u->copied, u->stream));
    return mm_stream_wait(stream, u->copied);
}

mm_status mm_upload_used(mm_upload *u, mm_stream *stream)
{
    return u->in_place ? MM_OK
                       : mm_event_record(u->buffers[u->current].used, stream);
}

mm_status mm_upload_wait(mm_upload *u)
{
    return u->in_place ? MM_OK : mm_event_sync(u->copied);
}
