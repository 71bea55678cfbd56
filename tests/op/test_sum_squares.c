/* Sums of squares, accumulated in double precision. */

#include "tests/op/op_test.h"

#include <stdlib.h>
#include <string.h>

enum { LARGE = 3000001 };

/* out: the double's two halves. */
static void compute(op_env *env, const void *context, float *out)
{
    int64_t n = *(const int64_t *)context;
    float *x = op_random(1, n);
    double sum;
    double *d_sum = op_put(env, NULL, sizeof sum);
    op_ok(
        env->ops->sum_squares(env->stream, d_sum, op_put_floats(env, x, n), n));
    op_get(env, d_sum, &sum, sizeof sum);
    memcpy(out, &sum, sizeof sum);
    free(x);
}

static void sum_of_squares_is_accumulated_in_double(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 5, 4097, LARGE};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        float *x = op_random(1, sizes[s]), out[2];
        long double want = 0.0L;
        double got;
        for (int64_t i = 0; i < sizes[s]; i++)
            want += (long double)x[i] * (long double)x[i];
        op_env env;
        op_open(&env, 2);
        compute(&env, &sizes[s], out);
        op_close(&env);
        memcpy(&got, out, sizeof got);
        assert_true(got >= want * (1.0L - 1e-12L) &&
                    got <= want * (1.0L + 1e-12L));
        free(x);
    }
}

static void sum_of_squares_does_not_overflow_single_precision(void **state)
{
    (void)state;
    const float x[3] = {3e30f, -3e30f, 1e-30f};
    double sum;
    op_env env;
    op_open(&env, 1);
    double *d_sum = op_put(&env, NULL, sizeof sum);
    op_ok(
        env.ops->sum_squares(env.stream, d_sum, op_put_floats(&env, x, 3), 3));
    op_get(&env, d_sum, &sum, sizeof sum);
    op_close_to(sum, 2.0 * (double)x[0] * (double)x[0], sum, 0);
    op_close(&env);
}

static void
sum_of_squares_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const int64_t n = LARGE;
    op_same_for_any_threads(compute, &n, 2);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(sum_of_squares_is_accumulated_in_double),
    cmocka_unit_test(sum_of_squares_does_not_overflow_single_precision),
    cmocka_unit_test(
        sum_of_squares_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
