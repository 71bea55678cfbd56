/* Filling buffers of floats and of activations, and nothing beside them.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <stdlib.h>

static const int64_t sizes[] = {0, 1, 7, 8, 33, 100003};

static void fill_floats(op_env *env, float *out, int64_t n)
{
    float *x = op_put_floats(env, NULL, n);
    op_ok(env->ops->fill(env->stream, x, -2.5f, n));
    op_get_floats(env, x, out, n);
}

static void fill_acts(op_env *env, float *out, int64_t n)
{
    mm_act *x = op_put_acts(env, NULL, n);
    op_ok(env->ops->fill_act(env->stream, x, -2.5f, n));
    op_get_acts(env, x, out, n);
}

static void fill_and_check(void (*fill)(op_env *env, float *out, int64_t n))
{
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        float *out = op_host(sizes[s] * 4);
        op_env env;
        op_open(&env, 2);
        fill(&env, out, sizes[s]);
        for (int64_t i = 0; i < sizes[s]; i++)
            assert_true(out[i] == -2.5f);
        op_close(&env);
        free(out);
    }
}

static void fill_sets_every_element_and_no_other(void **state)
{
    (void)state;
    fill_and_check(fill_floats);
}

static void fill_act_sets_every_activation_and_no_other(void **state)
{
    (void)state;
    fill_and_check(fill_acts);
}

static void fill_refuses_null_and_negative_counts(void **state)
{
    (void)state;
    float x = 0.0f;
    op_env env;
    op_open(&env, 1);
    assert_int_equal(env.ops->fill(env.stream, NULL, 0.0f, 1), MM_E_ARG);
    assert_int_equal(env.ops->fill(env.stream, &x, 0.0f, -1), MM_E_ARG);
    assert_int_equal(env.ops->fill_act(env.stream, NULL, 0.0f, 1), MM_E_ARG);
    op_close(&env);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(fill_sets_every_element_and_no_other),
    cmocka_unit_test(fill_act_sets_every_activation_and_no_other),
    cmocka_unit_test(fill_refuses_null_and_negative_counts),
};
OP_MAIN(tests)
