/* Folding a gradient into the Fisher information, bit by bit, and the mean of
 * old and new information. */

#include "tests/op/op_test.h"

#include <stdlib.h>
#include <string.h>

static const float keep = 0.5f, scale = 0.3f;

static void compute(op_env *env, const void *context, float *out)
{
    int64_t n = *(const int64_t *)context;
    float *fisher = op_random(1, n), *grad = op_random(2, n);
    float *f = op_put_floats(env, fisher, n);
    op_ok(env->ops->fold_fisher(env->stream, f, op_put_floats(env, grad, n),
                                keep, scale, n));
    op_get_floats(env, f, out, n);
    free(fisher);
    free(grad);
}

/* Each operation is rounded to fp32, so there is one right answer. */
static void fold_fisher_rounds_each_operation(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 3, 1000, 70003};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int64_t n = sizes[s];
        float *fisher = op_random(1, n), *grad = op_random(2, n);
        float *out = op_host(n * 4);
        op_env env;
        op_open(&env, 2);
        compute(&env, &n, out);
        op_close(&env);
        for (int64_t i = 0; i < n; i++) {
            volatile float square = grad[i] * grad[i];
            volatile float added = scale * square, kept = keep * fisher[i];
            assert_true(out[i] == kept + added);
        }
        free(fisher);
        free(grad);
        free(out);
    }
}

/* Two batches of a later task, and the mean of its information and the old. */
static void batches_add_up_to_the_mean_of_old_and_new(void **state)
{
    (void)state;
    const float old[3] = {4, 0, 2}, grad[2][3] = {{1, 2, 0}, {3, 0, -4}};
    float got[3];
    op_env env;
    op_open(&env, 1);
    float *f = op_put_floats(&env, old, 3);
    for (int b = 0; b < 2; b++)
        op_ok(env.ops->fold_fisher(env.stream, f,
                                   op_put_floats(&env, grad[b], 3),
                                   b == 0 ? 0.5f : 1.0f, 0.5f / 2.0f, 3));
    op_get_floats(&env, f, got, 3);
    op_close(&env);
    for (int i = 0; i < 3; i++) {
        float mean = (grad[0][i] * grad[0][i] + grad[1][i] * grad[1][i]) / 2;
        assert_true(got[i] == 0.5f * old[i] + 0.5f * mean);
    }
}

static void fold_fisher_takes_unaligned_pointers(void **state)
{
    (void)state;
    enum { N = 1001 };
    float *fisher = op_random(1, N), *grad = op_random(2, N), got[N];
    op_env env;
    op_open(&env, 1);
    float *f = op_put_floats(&env, fisher, N);
    op_ok(env.ops->fold_fisher(env.stream, f + 1,
                               op_put_floats(&env, grad, N) + 1, keep, scale,
                               N - 1));
    op_get_floats(&env, f, got, N);
    op_close(&env);
    assert_true(got[0] == fisher[0]);
    for (int i = 1; i < N; i++)
        op_close_to(got[i], keep * fisher[i] + scale * grad[i] * grad[i], 1, 1);
    free(fisher);
    free(grad);
}

static void fold_fisher_refuses_missing_arguments(void **state)
{
    (void)state;
    op_env env;
    op_open(&env, 1);
    float *x = op_put_floats(&env, NULL, 1);
    assert_int_equal(env.ops->fold_fisher(env.stream, NULL, x, 1, 1, 1),
                     MM_E_ARG);
    assert_int_equal(env.ops->fold_fisher(env.stream, x, NULL, 1, 1, 1),
                     MM_E_ARG);
    assert_int_equal(env.ops->fold_fisher(env.stream, x, x, 1, 1, -1),
                     MM_E_ARG);
    op_close(&env);
}

static void
fold_fisher_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const int64_t n = 300007;
    op_same_for_any_threads(compute, &n, n);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(fold_fisher_rounds_each_operation),
    cmocka_unit_test(batches_add_up_to_the_mean_of_old_and_new),
    cmocka_unit_test(fold_fisher_takes_unaligned_pointers),
    cmocka_unit_test(fold_fisher_refuses_missing_arguments),
    cmocka_unit_test(fold_fisher_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
