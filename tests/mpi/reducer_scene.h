#ifndef MAGMAX_TESTS_MPI_REDUCER_SCENE_H
#define MAGMAX_TESTS_MPI_REDUCER_SCENE_H

/* Ranks, the device that MAGMAX_TEST_DEVICE names, and a gradient there: what
 * tests of sums over ranks start from. Include cmocka first. */

#include "comm/reducer.h"

#include <stdlib.h>

enum { N = 4000 };

typedef struct scene {
    mm_comm *comm;
    int rank, n_ranks;
    mm_device *device;
    mm_stream *stream;
    float *memory; /* [N] of the device: what is summed */
    float grad[N]; /* what goes there, and comes back */
} scene;

static inline int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    *state = s;
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK)
        return 1;
    s->rank = mm_comm_rank(s->comm);
    s->n_ranks = mm_comm_n_ranks(s->comm);
    const char *name = getenv("MAGMAX_TEST_DEVICE");
    void *memory = NULL;
    if (mm_device_choose(name ? name : "cpu", "fp32", 1,
                         mm_comm_node_rank(s->comm), &s->device) != MM_OK ||
        mm_stream_create(s->device, &s->stream) != MM_OK ||
        mm_device_alloc(s->device, sizeof s->grad, &memory) != MM_OK)
        return 1;
    s->memory = memory;
    return 0;
}

static inline int clear_scene(void **state)
{
    scene *s = *state;
    void *memory = s->memory;
    mm_device_free(s->device, &memory);
    mm_stream_destroy(&s->stream);
    mm_device_close(&s->device);
    mm_comm_destroy(&s->comm);
    free(s);
    return 0;
}

static inline mm_reducer *create(const scene *s, int64_t bucket_elems)
{
    const mm_reducer_plan plan = {
        .comm = s->comm,
        .device = s->device,
        .stream = s->stream,
        .bucket_elems = bucket_elems,
    };
    mm_reducer *reducer = NULL;
    assert_int_equal(mm_reducer_create(&plan, &reducer), MM_OK);
    return reducer;
}

static inline void put(const scene *s)
{
    assert_int_equal(
        mm_copy_to_device(s->stream, s->memory, s->grad, sizeof s->grad),
        MM_OK);
}

/** End the round, and see what has become of it. */
static inline void finish(scene *s, mm_reducer *reducer)
{
    assert_int_equal(mm_reducer_finish(reducer), MM_OK);
    assert_int_equal(
        mm_copy_to_host(s->stream, s->grad, s->memory, sizeof s->grad), MM_OK);
    assert_int_equal(mm_reducer_wait(reducer), MM_OK);
    assert_int_equal(mm_stream_sync(s->stream), MM_OK);
}

/** This rank's part of element i; small enough that sums are exact. */
static inline float part(int rank, int i, int round)
{
    return (float)((rank + 1) * (i % 17 - 5 + round));
}

static inline void fill(scene *s, int round)
{
    for (int i = 0; i < N; i++)
        s->grad[i] = part(s->rank, i, round);
    put(s);
}

static inline void assert_summed(const scene *s, int lo, int hi, int round)
{
    for (int i = lo; i < hi; i++) {
        float sum = 0;
        for (int r = 0; r < s->n_ranks; r++)
            sum += part(r, i, round);
        assert_true(s->grad[i] == sum);
    }
}

static inline void assert_untouched(const scene *s, int lo, int hi, int round)
{
    for (int i = lo; i < hi; i++)
        assert_true(s->grad[i] == part(s->rank, i, round));
}

#endif
