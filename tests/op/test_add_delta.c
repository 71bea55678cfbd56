/* Adding the difference of two buffers to a third, bit by bit: two roundings,
 * nothing fused. */

#include "tests/op/op_test.h"

#include <stdlib.h>

static void add_delta_rounds_twice_and_fuses_nothing(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 7, 33, 100003};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int64_t n = sizes[s];
        float *sum = op_random(1, n), *tuned = op_random(2, n);
        float *base = op_random(3, n), *got = op_host(n * 4);
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            op_env env;
            op_open(&env, n_threads);
            float *d_sum = op_put_floats(&env, sum, n);
            op_ok(env.ops->add_delta(env.stream, d_sum,
                                     op_put_floats(&env, tuned, n),
                                     op_put_floats(&env, base, n), n));
            op_get_floats(&env, d_sum, got, n);
            op_close(&env);
            for (int64_t i = 0; i < n; i++) {
                volatile float d = tuned[i] - base[i];
                assert_true(got[i] == sum[i] + d);
            }
        }
        free(sum);
        free(tuned);
        free(base);
        free(got);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(add_delta_rounds_twice_and_fuses_nothing),
};
OP_MAIN(tests)
