#ifndef MAGMAX_KERNELS_DEVICE_H
#define MAGMAX_KERNELS_DEVICE_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A place that computes: its memory, its streams, its table of ops. */
typedef struct mm_device mm_device;

/** Ops enqueued on one stream run in order. The CPU's stream runs each op
 * before the call returns. */
typedef struct mm_stream mm_stream;

/** A point in a stream that others can wait for. The CPU's events are always
 * past: what they follow has run. */
typedef struct mm_event mm_event;

struct mm_ops;

/**
 * Open a backend by name, "cpu" or "cuda", or by name and variant: "cpu:" and
 * an instruction set; "cuda:" and a precision (fp32, which is taken without
 * one, tf32, bf16), a number, or both ("cuda:tf32:1"). The number wraps
 * around the GPUs that are visible to this process: of two, 3 is the second
 * one. CUDA is a module of its own (docs/gpu.md), loaded here.
 *
 * Memory   Gives *device, freed by mm_device_close, after all its streams.
 * Ranks    Local. `n_threads` is this rank's share of the cores, at least 1.
 * Timing   Blocking; milliseconds where there is no GPU.
 * Errors   MM_E_ARG for a name that does not exist (known ones are listed);
 *          MM_E_DEVICE if the backend is missing or refuses to start, saying
 *          why.
 */
mm_status mm_device_open(const char *name, int n_threads, mm_device **device);

/**
 * What a user asks for: "cpu"; "cuda", which is the GPU of this rank's number
 * on its node, wrapping around those that are visible; "auto", which is that
 * where there is one, else the CPU, whose description then says why.
 * `precision` is fp32, tf32 or bf16; NULL: bf16 on a GPU, fp32 on the CPU,
 * which has no other. Otherwise as mm_device_open.
 *
 * Errors   MM_E_ARG for a precision that the CPU does not have.
 */
mm_status mm_device_choose(const char *name, const char *precision,
                           int n_threads, int node_rank, mm_device **device);
void mm_device_close(mm_device **device);

const struct mm_ops *mm_device_ops(const mm_device *device);

/** Whether the host can reach its memory by the copies below only. */
bool mm_device_has_own_memory(const mm_device *device);

/** Bytes of an mm_act (kernels/ops.h): 4 or 2. */
int64_t mm_device_act_bytes(const mm_device *device);

/** How it computes: "fp32", "tf32" or "bf16". */
const char *mm_device_precision(const mm_device *device);

/** Which op computes the gradient of a bias, the column sums of dy: if true,
 * the one that makes dy (linear_grad_act, attention_grad, layernorm_grad), else
 * linear_grad_weight. */
bool mm_device_sums_with_gradients(const mm_device *device);

/** Which GPU of the host it is, the same for all processes whichever GPUs are
 * visible to them: the PCI bus id. "" for a CPU. */
const char *mm_device_gpu(const mm_device *device);

/** One line for people: "cpu, 2 threads, x86-64-v3". */
const char *mm_device_describe(const mm_device *device);

/**
 * Device memory, 64-byte aligned, contents undefined.
 *
 * Memory   Gives *memory, returned by mm_device_free, which takes NULL.
 * Errors   MM_E_MEMORY naming the size.
 */
mm_status mm_device_alloc(mm_device *device, int64_t n_bytes, void **memory);
void mm_device_free(mm_device *device, void **memory);

/**
 * Host memory that copies to and from the device go through without a stop:
 * pinned where the device has its own memory. 64-byte aligned, contents
 * undefined.
 *
 * Memory   Gives *memory, returned by mm_host_free, which takes NULL; not
 *          before the copies that use it are done.
 * Errors   MM_E_MEMORY naming the size.
 */
mm_status mm_host_alloc(mm_device *device, int64_t n_bytes, void **memory);
void mm_host_free(mm_device *device, void **memory);

mm_status mm_stream_create(mm_device *device, mm_stream **stream);

/** As mm_stream_create, for short work that other work waits for: where a
 * device runs several streams at once, this one has priority. */
mm_status mm_stream_create_urgent(mm_device *device, mm_stream **stream);
void mm_stream_destroy(mm_stream **stream);

/**
 * Make sure that ops on this stream find `n_bytes` of scratch (for the CPU: in
 * each thread). Call before the first step; ops never allocate.
 */
mm_status mm_stream_reserve(mm_stream *stream, int64_t n_bytes);

/**
 * Have long-running CPU ops call `poll(context)` from the calling thread every
 * few milliseconds of work, so that a transport without its own progress can
 * move while we compute. NULL turns it off. Devices with asynchronous streams
 * ignore it. `poll` must not call ops.
 */
void mm_stream_set_poll(mm_stream *stream, void (*poll)(void *context),
                        void *context);

/** Wait until everything enqueued has finished; reports deferred errors. */
mm_status mm_stream_sync(mm_stream *stream);

/**
 * Order between streams of one device: record an event on the stream that goes
 * first, have the other one wait for it.
 *
 * An event means the point where it was recorded last; one that was never
 * recorded is past. Recording it again leaves waits that were enqueued before
 * as they are.
 *
 * Memory   mm_event_create gives *event, freed by mm_event_destroy, which takes
 *          NULL; before its device is closed.
 * Ranks    Local.
 * Timing   mm_event_record and mm_stream_wait are enqueued and never hold up
 *          the host; mm_event_sync waits until the point is past,
 *          mm_event_is_past only looks.
 * Errors   MM_E_DEVICE if the device has failed. What ops report late, they
 *          report to mm_stream_sync.
 */
mm_status mm_event_create(mm_device *device, mm_event **event);
void mm_event_destroy(mm_event **event);
mm_status mm_event_record(mm_event *event, mm_stream *stream);
mm_status mm_stream_wait(mm_stream *stream, mm_event *event);
mm_status mm_event_sync(mm_event *event);
mm_status mm_event_is_past(mm_event *event, bool *is_past);

/** The vendor's own handle of the stream (CUDA's cudaStream_t), for libraries
 * that enqueue by themselves; NULL where there is none. */
void *mm_stream_native(const mm_stream *stream);

/** Copy between host and device in stream order. Borrowed until the stream
 * passes this call; the host does not wait for it where its memory comes from
 * mm_host_alloc. */
mm_status mm_copy_to_device(mm_stream *stream, void *device_memory,
                            const void *host, int64_t n_bytes);
mm_status mm_copy_to_host(mm_stream *stream, void *host,
                          const void *device_memory, int64_t n_bytes);

#endif
