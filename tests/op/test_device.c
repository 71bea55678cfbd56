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
        mm_device_release(env.device, &memory);
        assert_null(memory);
        mm_device_release(env.device, &memory);
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
        mm_host_release(env.device, &there);
        mm_host_release(env.device, &back);
        assert_null(there);
        mm_host_release(env.device, &there);
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
    cmocka_unit_test(a_long_product_polls_many_times),
};
OP_MAIN(tests)
