/* Adding a scaled buffer, bit by bit: every operation is rounded. */

#include "tests/op/op_test.h"

#include <stdlib.h>

static void add_scaled_rounds_every_operation(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 7, 33, 100003};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int64_t n = sizes[s];
        float *base = op_random(1, n), *tau = op_random(2, n);
        float *got = op_host(n * 4);
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            op_env env;
            op_open(&env, n_threads);
            float *out = op_put(&env, NULL, n * 4);
            op_ok(env.ops->add_scaled(
                env.stream, out, op_put_floats(&env, base, n),
                op_put_floats(&env, tau, n), 3.0f, 0.7f, n));
            op_get_floats(&env, out, got, n);
            op_close(&env);
            for (int64_t i = 0; i < n; i++) {
                volatile float mean = tau[i] / 3.0f;
                volatile float part = 0.7f * mean;
                assert_true(got[i] == base[i] + part);
            }
        }
        free(base);
        free(tau);
        free(got);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(add_scaled_rounds_every_operation),
};
OP_MAIN(tests)
