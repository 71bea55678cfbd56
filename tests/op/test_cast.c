/* Conversions between fp32 and the device's activations: rounding, ties, NaN
 * and infinities.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>

static void float_to_act_rounds_to_nearest_and_back_is_exact(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 7, 8, 33, 70001};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int64_t n = sizes[s];
        float *x = op_random(1, n), *acts = op_host(n * 4);
        float *back = op_host(n * 4);
        op_env env;
        op_open(&env, 2);
        mm_act *d_acts = op_put_acts(&env, NULL, n);
        float *d_back = op_put_floats(&env, NULL, n);
        op_ok(env.ops->float_to_act(env.stream, d_acts,
                                    op_put_floats(&env, x, n), n));
        op_ok(env.ops->act_to_float(env.stream, d_back, d_acts, n));
        op_get_acts(&env, d_acts, acts, n);
        op_get_floats(&env, d_back, back, n);
        for (int64_t i = 0; i < n; i++) {
            assert_true(fabsf(acts[i] - x[i]) <= op_act_error() * fabsf(x[i]));
            assert_true(acts[i] == op_act_of(x[i]) && back[i] == acts[i]);
        }
        op_close(&env);
        free(x);
        free(acts);
        free(back);
    }
}

/* Ties go to even, and what is too large becomes infinite. */
static void casts_keep_specials(void **state)
{
    (void)state;
    enum { N = 8 };
    const float x[N] = {NAN,  INFINITY, -INFINITY, -0.0f,
                        1.0f, 1e-42f,   0x1.01p0f, 0x1.03p0f};
    float got[N];
    op_env env;
    op_open(&env, 1);
    mm_act *acts = op_put_acts(&env, NULL, N);
    op_ok(
        env.ops->float_to_act(env.stream, acts, op_put_floats(&env, x, N), N));
    op_get_acts(&env, acts, got, N);
    assert_true(isnan(got[0]) && got[1] == INFINITY && got[2] == -INFINITY);
    assert_true(got[3] == 0.0f && signbit(got[3]) && got[4] == 1.0f);
    assert_true(fabsf(got[5] - 1e-42f) <= 0x1p-134f);
    assert_true(got[6] == (op_act_error() > 0 ? 0x1.0p0f : 0x1.01p0f));
    assert_true(got[7] == (op_act_error() > 0 ? 0x1.04p0f : 0x1.03p0f));
    op_close(&env);
}

static void casts_refuse_null_and_negative_counts(void **state)
{
    (void)state;
    float x = 0.0f;
    mm_act *act = (mm_act *)&x;
    op_env env;
    op_open(&env, 1);
    assert_int_equal(env.ops->float_to_act(env.stream, NULL, &x, 1), MM_E_ARG);
    assert_int_equal(env.ops->float_to_act(env.stream, act, &x, -1), MM_E_ARG);
    assert_int_equal(env.ops->act_to_float(env.stream, NULL, act, 1), MM_E_ARG);
    assert_int_equal(env.ops->act_to_float(env.stream, &x, act, -1), MM_E_ARG);
    op_close(&env);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(float_to_act_rounds_to_nearest_and_back_is_exact),
    cmocka_unit_test(casts_keep_specials),
    cmocka_unit_test(casts_refuse_null_and_negative_counts),
};
OP_MAIN(tests)
