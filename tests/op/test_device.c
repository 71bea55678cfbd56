/* Devices themselves: opening, memory, copies, scratch, streams and events. */

#include "tests/op/op_test.h"

#include <stdlib.h>
#include <string.h>

static void opening_an_unknown_device_lists_the_known_ones(void **state)
{
    (void)state;
    mm_device *device = NULL;
    assert_int_equal(mm_device_open("abacus", 1, &device), MM_E_ARG);
    assert_null(device);
    assert_non_null(strstr(mm_fail_message(), "cpu"));
    assert_int_equal(mm_device_open("cpu:abacus", 1, &device), MM_E_ARG);
    assert_null(device);
    assert_int_equal(mm_device_open(op_device_name(), 0, &device), MM_E_ARG);
}

static void a_device_describes_itself(void **state)
{
    (void)state;
    mm_device *device = NULL;
    op_ok(mm_device_open(op_device_name(), 2, &device));
    assert_non_null(
        strstr(mm_device_describe(device), mm_device_ops(device)->backend));
    mm_device_close(&device);
    assert_null(device);
    mm_device_close(&device);
}

static void memory_is_aligned_and_may_be_empty(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 100, 5 << 20};
    op_env env;
    op_open(&env, 1);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        void *memory = NULL;
        op_ok(mm_device_alloc(env.device, sizes[s], &memory));
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        mm_device_free(env.device, &memory);
        assert_null(memory);
        mm_device_free(env.device, &memory);
    }
    void *memory = NULL;
    assert_int_equal(mm_device_alloc(env.device, INT64_MAX, &memory),
                     MM_E_MEMORY);
    assert_int_equal(mm_device_alloc(env.device, -1, &memory), MM_E_ARG);
    op_close(&env);
}

static void host_memory_is_aligned_and_copies_go_through_it(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 100, 5 << 20};
    op_env env;
    op_open(&env, 1);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        void *there = NULL, *back = NULL;
        op_ok(mm_host_alloc(env.device, sizes[s], &there));
        op_ok(mm_host_alloc(env.device, sizes[s], &back));
        assert_non_null(there);
        assert_int_equal((uintptr_t)there % 64, 0);
        memset(there, 7, (size_t)sizes[s]);
        void *on_device = op_put(&env, NULL, sizes[s]);
        op_ok(mm_copy_to_device(env.stream, on_device, there, sizes[s]));
        op_ok(mm_copy_to_host(env.stream, back, on_device, sizes[s]));
        op_ok(mm_stream_sync(env.stream));
        assert_memory_equal(there, back, (size_t)sizes[s]);
        mm_host_free(env.device, &there);
        mm_host_free(env.device, &back);
        assert_null(there);
        mm_host_free(env.device, &there);
    }
    void *memory = NULL;
    assert_int_equal(mm_host_alloc(env.device, INT64_MAX, &memory),
                     MM_E_MEMORY);
    assert_int_equal(mm_host_alloc(env.device, -1, &memory), MM_E_ARG);
    op_close(&env);
}

static void scratch_grows_and_never_shrinks(void **state)
{
    (void)state;
    op_env env;
    op_open(&env, 2);
    op_ok(mm_stream_reserve(env.stream, 1000));
    op_ok(mm_stream_reserve(env.stream, 10));
    op_ok(mm_stream_reserve(env.stream, 0));
    op_ok(mm_stream_reserve(env.stream, 1 << 20));
    assert_int_equal(mm_stream_reserve(env.stream, -1), MM_E_ARG);
    op_close(&env);
}

enum { N_NUMBERS = 1000, N_ROUNDS = 4 };

/** Two streams that pass numbers on, waiting for each other. */
static void a_stream_that_waits_sees_what_the_other_did(void **state)
{
    (void)state;
    op_env env;
    mm_stream *other = NULL;
    mm_event *filled = NULL, *added = NULL;
    op_open(&env, 1);
    op_ok(mm_stream_create(env.device, &other));
    op_ok(mm_event_create(env.device, &filled));
    op_ok(mm_event_create(env.device, &added));
    float *x = op_put(&env, NULL, N_NUMBERS * 4);
    float *y = op_put(&env, NULL, N_NUMBERS * 4);
    float got[N_NUMBERS];
    op_ok(mm_stream_wait(env.stream, added)); /* never recorded */
    op_ok(env.ops->fill(other, y, 0.0f, N_NUMBERS));
    for (int round = 1; round <= N_ROUNDS; round++) {
        op_ok(env.ops->fill(env.stream, x, (float)round, N_NUMBERS));
        op_ok(mm_event_record(filled, env.stream));
        op_ok(mm_stream_wait(other, filled));
        op_ok(env.ops->add_scaled(other, y, y, x, 1.0f, 1.0f, N_NUMBERS));
        op_ok(mm_event_record(added, other));
        op_ok(mm_stream_wait(env.stream, added));
        op_ok(mm_copy_to_host(env.stream, got, y, sizeof got));
        op_ok(mm_stream_sync(env.stream));
        for (int i = 0; i < N_NUMBERS; i++)
            assert_true(got[i] == (float)(round * (round + 1) / 2));
    }
    mm_event_destroy(&added);
    mm_event_destroy(&filled);
    assert_null(filled);
    mm_event_destroy(&filled);
    mm_stream_destroy(&other);
    op_close(&env);
}

static void the_host_can_wait_for_an_event_or_look(void **state)
{
    (void)state;
    op_env env;
    mm_event *event = NULL;
    bool is_past = false;
    float got[2] = {0, 0};
    op_open(&env, 1);
    float *x = op_put(&env, NULL, sizeof got);
    op_ok(mm_event_create(env.device, &event));
    op_ok(mm_event_sync(event));
    op_ok(mm_event_is_past(event, &is_past));
    assert_true(is_past);

    op_ok(env.ops->fill(env.stream, x, 3.0f, 2));
    op_ok(mm_copy_to_host(env.stream, &got[0], x, sizeof got[0]));
    op_ok(mm_event_record(event, env.stream));
    op_ok(mm_event_sync(event));
    assert_true(got[0] == 3.0f);

    op_ok(mm_copy_to_host(env.stream, &got[1], x, sizeof got[1]));
    op_ok(mm_event_record(event, env.stream));
    do
        op_ok(mm_event_is_past(event, &is_past));
    while (!is_past);
    assert_true(got[1] == 3.0f);
    mm_event_destroy(&event);
    op_close(&env);
}

static void an_event_is_for_the_streams_of_its_device(void **state)
{
    (void)state;
    op_env one, two;
    mm_event *event = NULL;
    op_open(&one, 1);
    op_open(&two, 1);
    op_ok(mm_event_create(one.device, &event));
    assert_int_equal(mm_event_record(event, two.stream), MM_E_ARG);
    assert_int_equal(mm_stream_wait(two.stream, event), MM_E_ARG);
    mm_event_destroy(&event);
    op_close(&two);
    op_close(&one);
}

static void the_vendors_stream_is_for_devices_with_streams(void **state)
{
    (void)state;
    op_env env;
    op_open(&env, 1);
    bool is_cpu = !strncmp(op_device_name(), "cpu", 3);
    assert_int_equal(mm_stream_native(env.stream) == NULL, is_cpu);
    op_close(&env);
}

static void count_call(void *context)
{
    (*(int *)context)++;
}

static void a_long_product_polls_many_times(void **state)
{
    (void)state;
    enum { N = 2048 };
    float *x = op_random(1, N * N);
    int n_calls = 0;
    op_env env;
    op_open(&env, 1);
    float *a = op_put_floats(&env, x, N * N);
    float *c = op_put(&env, NULL, N * N * 4);
    mm_stream_set_poll(env.stream, count_call, &n_calls);
    op_ok(env.ops->gemm(env.stream, c, a, a, false, true, N, N, N, 0.0f));
    bool counts = !strncmp(op_device_name(), "cpu", 3);
    if (counts)
        assert_in_range(n_calls, 4, 1000);
    mm_stream_set_poll(env.stream, NULL, NULL);
    n_calls = 0;
    op_ok(env.ops->gemm(env.stream, c, a, a, false, true, N, N, N, 0.0f));
    assert_int_equal(n_calls, 0);
    op_close(&env);
    free(x);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(opening_an_unknown_device_lists_the_known_ones),
    cmocka_unit_test(a_device_describes_itself),
    cmocka_unit_test(memory_is_aligned_and_may_be_empty),
    cmocka_unit_test(host_memory_is_aligned_and_copies_go_through_it),
    cmocka_unit_test(scratch_grows_and_never_shrinks),
    cmocka_unit_test(a_stream_that_waits_sees_what_the_other_did),
    cmocka_unit_test(the_host_can_wait_for_an_event_or_look),
    cmocka_unit_test(an_event_is_for_the_streams_of_its_device),
    cmocka_unit_test(the_vendors_stream_is_for_devices_with_streams),
    cmocka_unit_test(a_long_product_polls_many_times),
};
OP_MAIN(tests)
