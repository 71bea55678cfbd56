/* Counting NaN and infinities, at every place of small and large buffers. */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>

static int64_t count(const float *x, int64_t n, int n_threads)
{
    int64_t result = -1;
    op_env env;
    op_open(&env, n_threads);
    int64_t *d_count = op_put(&env, NULL, sizeof result);
    op_ok(env.ops->count_nonfinite(env.stream, d_count,
                                   op_put_floats(&env, x, n), n));
    op_get(&env, d_count, &result, sizeof result);
    op_close(&env);
    return result;
}

static void nan_and_both_infinities_are_counted_and_nothing_else(void **state)
{
    (void)state;
    const float x[9] = {NAN,  INFINITY, -INFINITY, 0.0f,  -0.0f,
                        -NAN, 3.4e38f,  -3.4e38f,  1e-45f};
    for (int64_t n = 0; n <= 9; n++) {
        int64_t want = n < 3 ? n : n < 6 ? 3 : 4;
        assert_int_equal(count(x, n, 1), want);
    }
}

static void every_place_in_a_large_buffer_is_looked_at(void **state)
{
    (void)state;
    enum { N = 200003 };
    float *x = op_random(1, N);
    for (int i = 0; i < N; i += 1000)
        x[i] = NAN;
    x[N - 1] = INFINITY;
    for (int n_threads = 1; n_threads <= 3; n_threads++)
        assert_int_equal(count(x, N, n_threads), 202);
    free(x);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(nan_and_both_infinities_are_counted_and_nothing_else),
    cmocka_unit_test(every_place_in_a_large_buffer_is_looked_at),
};
OP_MAIN(tests)
