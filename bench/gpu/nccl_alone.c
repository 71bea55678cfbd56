/*
 * NCCL with one rank, through the module that training opens (comm/nccl): joins
 * by itself, sums numbers of both types, which must stay what they are, times
 * it, and leaves.
 *
 *   nccl_alone DEVICE [MOST_ELEMS]
 *
 * DEVICE as mm_device_open has it. Prints a JSON object a type and length, up
 * to MOST_ELEMS (default: the longest message of a training step). Exits with 1
 * where NCCL fails or a number has changed, with 77 without a device or NCCL.
 */
#include "comm/comm.h"
#include "comm/nccl/nccl_table.h"
#include "kernels/device.h"
#include "src/base/clock.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_SUMS = 20, MOST_ELEMS = 13000000 };
static const double limit_s = 60;

static const char *const type_names[] = {
    [MM_NCCL_BF16] = "bf16", [MM_NCCL_FLOAT] = "fp32"};
static const int64_t type_bytes[] = {[MM_NCCL_BF16] = 2, [MM_NCCL_FLOAT] = 4};

typedef struct scene {
    const mm_nccl *nccl;
    mm_nccl_comm *comm;
    mm_device *device;
    mm_stream *stream;
    void *memory;         /* the device's: what is summed */
    void *before, *after; /* the host's */
} scene;

static void fail(int code)
{
    fprintf(stderr, "nccl_alone: %s\n", mm_fail_message());
    exit(code);
}

static void must(mm_status st)
{
    if (st != MM_OK)
        fail(1);
}

static void must_be_there(mm_status st)
{
    if (st != MM_OK)
        fail(st == MM_E_DEVICE ? 77 : 1);
}

/** NCCL's calls return before they have taken effect. */
static void wait_ready(const scene *s)
{
    const double begin_s = mm_clock_s();
    bool is_ready = false;
    while (!is_ready) {
        must(s->nccl->is_ready(s->comm, &is_ready));
        if (mm_clock_s() - begin_s > limit_s)
            must(mm_fail(MM_E_COMM, "NCCL is not ready after %.0f s", limit_s));
        sched_yield();
    }
}

static void join(scene *s)
{
    char id[MM_NCCL_ID_BYTES];
    const double begin_s = mm_clock_s();
    must(s->nccl->make_id(id));
    must(s->nccl->create(id, 0, 1, &s->comm));
    wait_ready(s);
    printf("{\"nccl\": \"join\", \"device\": \"%s\", \"seconds\": %.3g}\n",
           mm_device_describe(s->device), mm_clock_s() - begin_s);
}

static void sum(const scene *s, mm_nccl_type type, int64_t n)
{
    must(
        s->nccl->sum(s->comm, s->memory, n, type, mm_stream_native(s->stream)));
    wait_ready(s);
}

/** All finite, no two adjacent elements equal. */
static void fill(void *memory, mm_nccl_type type, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float x = (float)(i * 40503 % 251 - 125) / 8;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        if (type == MM_NCCL_FLOAT)
            ((float *)memory)[i] = x;
        else
            ((uint16_t *)memory)[i] = (uint16_t)(bits >> 16);
    }
}

static void sum_and_time(const scene *s, mm_nccl_type type, int64_t n)
{
    const int64_t n_bytes = n * type_bytes[type];
    fill(s->before, type, n);
    memset(s->after, 0xFF, (size_t)n_bytes);
    must(mm_copy_to_device(s->stream, s->memory, s->before, n_bytes));
    sum(s, type, n);
    must(mm_stream_sync(s->stream));
    const double begin_s = mm_clock_s();
    for (int i = 0; i < N_SUMS; i++)
        sum(s, type, n);
    must(mm_stream_sync(s->stream));
    const double sum_s = (mm_clock_s() - begin_s) / N_SUMS;
    must(mm_copy_to_host(s->stream, s->after, s->memory, n_bytes));
    must(mm_stream_sync(s->stream));
    if (memcmp(s->before, s->after, (size_t)n_bytes) != 0)
        must(mm_fail(MM_E_VALUE, "a sum over one rank has changed %s numbers",
                     type_names[type]));
    printf("{\"nccl\": \"sum\", \"type\": \"%s\", \"n_elems\": %lld, "
           "\"seconds\": %.3g}\n",
           type_names[type], (long long)n, sum_s);
}

int main(int argc, char **argv)
{
    scene s = {0};
    mm_comm *ranks = NULL;
    must(mm_comm_create(&argc, &argv, &ranks));
    const int64_t most = argc > 2 ? atoll(argv[2]) : MOST_ELEMS;
    if (argc < 2 || most < 1) {
        fprintf(stderr, "usage: nccl_alone DEVICE [MOST_ELEMS]\n");
        return 2;
    }
    must_be_there(mm_device_open(argv[1], 1, &s.device));
    if (!mm_device_has_own_memory(s.device))
        must(mm_fail(MM_E_ARG, "NCCL is for GPUs, not for %s", argv[1]));
    must_be_there(mm_nccl_open(&s.nccl));
    must(mm_stream_create_urgent(s.device, &s.stream));
    must(mm_device_alloc(s.device, 4 * most, &s.memory));
    must(mm_host_alloc(s.device, 4 * most, &s.before));
    must(mm_host_alloc(s.device, 4 * most, &s.after));
    join(&s);
    for (int type = MM_NCCL_BF16; type <= MM_NCCL_FLOAT; type++) {
        for (int64_t n = 1; n < most; n *= 30)
            sum_and_time(&s, (mm_nccl_type)type, n);
        sum_and_time(&s, (mm_nccl_type)type, most);
    }
    s.nccl->destroy(s.comm);
    mm_host_free(s.device, &s.before);
    mm_host_free(s.device, &s.after);
    mm_device_free(s.device, &s.memory);
    mm_stream_destroy(&s.stream);
    mm_device_close(&s.device);
    mm_comm_destroy(&ranks);
    return 0;
}
