/* A step of AdamW against double precision: clipping, weight decay, and the
 * low-precision copy of the weights.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>

/* A norm of 4 clipped to 2: a factor of one half, but for 1e-6. */
static const double grad_squares = 16, clip = 2;

static const mm_adamw step = {.lr = 1e-2f,
                              .beta1 = 0.9f,
                              .beta2 = 0.999f,
                              .eps = 1e-8f,
                              .weight_decay = 0.1f,
                              .bias1 = 0.271f,
                              .bias2 = 0.002997f};

/** `step` with its clipping, on a device. */
static mm_adamw clipped(op_env *env, double squares, double most)
{
    mm_adamw s = step;
    s.clip = most;
    s.grad_squares = op_put(env, &squares, (int64_t)sizeof squares);
    return s;
}

/* out: theta, m, v, theta_low. */
static void compute(op_env *env, const void *context, float *out)
{
    int64_t n = *(const int64_t *)context;
    float *theta = op_random(1, n), *m = op_random(2, n), *v = op_random(3, n);
    float *grad = op_random(4, n);
    for (int64_t i = 0; i < n; i++)
        v[i] *= v[i];
    float *buffers[3] = {op_put_floats(env, theta, n), op_put_floats(env, m, n),
                         op_put_floats(env, v, n)};
    mm_adamw s = clipped(env, grad_squares, clip);
    mm_act *theta_low = op_put_acts(env, NULL, n);
    op_ok(env->ops->adamw(env->stream, buffers[0], buffers[1], buffers[2],
                          theta_low, op_put_floats(env, grad, n), &s, n));
    for (int i = 0; i < 3; i++)
        op_get_floats(env, buffers[i], out + i * n, n);
    op_get_acts(env, theta_low, out + 3 * n, n);
    free(theta);
    free(m);
    free(v);
    free(grad);
}

static void adamw_step_matches_double_precision(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 7, 9, 1000, 70001};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int64_t n = sizes[s];
        float *theta = op_random(1, n), *m = op_random(2, n);
        float *v = op_random(3, n), *grad = op_random(4, n);
        float *out = op_host(4 * n * 4);
        op_env env;
        op_open(&env, 2);
        compute(&env, &n, out);
        op_close(&env);
        for (int64_t i = 0; i < n; i++) {
            double g = (double)grad[i] * (float)(clip / (4 + 1e-6));
            double t = theta[i];
            double mi = step.beta1 * (double)m[i] + (1.0 - step.beta1) * g;
            double vi =
                step.beta2 * (double)(v[i] * v[i]) + (1.0 - step.beta2) * g * g;
            t -= (double)step.lr * step.weight_decay * t;
            double move = (double)step.lr * (mi / step.bias1) /
                          (sqrt(vi / step.bias2) + step.eps);
            /* 1 - beta is exact; the roundings of m and v are relative. */
            op_close_to(out[n + i], mi, 1.0, 1);
            op_close_to(out[2 * n + i], vi, vi, 1);
            op_close_to(out[i], t - move, 1.0 + fabs(move), 1);
            assert_true(out[3 * n + i] == op_act_of(out[i]));
        }
        free(theta);
        free(m);
        free(v);
        free(grad);
        free(out);
    }
}

static void adamw_leaves_a_weight_without_gradient_to_decay(void **state)
{
    (void)state;
    const float theta = 2.0f, zero = 0.0f;
    float got[3];
    op_env env;
    op_open(&env, 1);
    float *t = op_put_floats(&env, &theta, 1);
    float *m = op_put_floats(&env, &zero, 1);
    float *v = op_put_floats(&env, &zero, 1);
    mm_adamw s = clipped(&env, 0, 1);
    op_ok(env.ops->adamw(env.stream, t, m, v, NULL,
                         op_put_floats(&env, &zero, 1), &s, 1));
    op_get_floats(&env, t, &got[0], 1);
    op_get_floats(&env, m, &got[1], 1);
    op_get_floats(&env, v, &got[2], 1);
    op_close_to(got[0], 2.0 * (1.0 - 1e-3), 2.0, 1);
    assert_true(got[1] == 0.0f && got[2] == 0.0f);
    op_close(&env);
}

/* Each step is lost where a weight is rounded; in theta they add up. */
static void
small_steps_add_up_in_theta_and_reach_the_low_precision_copy(void **state)
{
    (void)state;
    const float one = 1.0f, zero = 0.0f;
    const double squares = 1;
    enum { N_STEPS = 100 };
    float theta, theta_low;
    op_env env;
    op_open(&env, 1);
    const mm_adamw small = {
        .lr = 1e-4f,
        .eps = 1e-8f,
        .bias1 = 1.0f,
        .bias2 = 1.0f,
        .grad_squares = op_put(&env, &squares, (int64_t)sizeof squares)};
    float *t = op_put_floats(&env, &one, 1);
    float *m = op_put_floats(&env, &zero, 1);
    float *v = op_put_floats(&env, &zero, 1);
    float *grad = op_put_floats(&env, &one, 1);
    mm_act *copy = op_put_acts(&env, &one, 1);
    for (int i = 0; i < N_STEPS; i++) {
        op_ok(env.ops->adamw(env.stream, t, m, v, copy, grad, &small, 1));
        op_get_acts(&env, copy, &theta_low, 1);
        assert_true(i > 0 || theta_low == op_act_of(1.0f - 1e-4f));
    }
    op_get_floats(&env, t, &theta, 1);
    op_close_to(theta, 1.0 - N_STEPS * 1e-4, N_STEPS, 1);
    assert_true(theta_low == op_act_of(theta) && theta_low < 1.0f);
    op_close(&env);
}

/** m after one step from m = 0 with a gradient of 1: what it was scaled by, in
 * units of 1 - beta1. */
static float scaled_by(double squares, double most)
{
    const float zero = 0.0f, one = 1.0f;
    float m = 0;
    op_env env;
    op_open(&env, 1);
    float *buffers[3] = {op_put_floats(&env, &zero, 1),
                         op_put_floats(&env, &zero, 1),
                         op_put_floats(&env, &zero, 1)};
    mm_adamw s = clipped(&env, squares, most);
    op_ok(env.ops->adamw(env.stream, buffers[0], buffers[1], buffers[2], NULL,
                         op_put_floats(&env, &one, 1), &s, 1));
    op_get_floats(&env, buffers[1], &m, 1);
    op_close(&env);
    return m / (1.0f - step.beta1);
}

static void adamw_clips_a_large_gradient_only(void **state)
{
    (void)state;
    op_close_to(scaled_by(16, 1), 0.25, 1, 1);
    op_close_to(scaled_by(16, 100), 1, 1, 1);
    op_close_to(scaled_by(16, 0), 1, 1, 1); /* no clipping */
    op_close_to(scaled_by(0, 1), 1, 1, 1);
}

static void adamw_changes_nothing_where_the_norm_is_not_finite(void **state)
{
    (void)state;
    static const double bad[] = {NAN, INFINITY};
    static const double limits[] = {0, 1};
    const float before[4] = {1.5f, -0.25f, 0.5f, 3.0f};
    for (int i = 0; i < 4; i++) {
        float after[4];
        op_env env;
        op_open(&env, 1);
        float *buffers[3];
        for (int k = 0; k < 3; k++)
            buffers[k] = op_put_floats(&env, before, 4);
        mm_adamw s = clipped(&env, bad[i / 2], limits[i % 2]);
        op_ok(env.ops->adamw(env.stream, buffers[0], buffers[1], buffers[2],
                             NULL, op_put_floats(&env, before, 4), &s, 4));
        for (int k = 0; k < 3; k++) {
            op_get_floats(&env, buffers[k], after, 4);
            assert_memory_equal(before, after, sizeof before);
        }
        op_close(&env);
    }
}

static void adamw_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const int64_t n = 200001;
    op_same_for_any_threads(compute, &n, 4 * n);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(adamw_step_matches_double_precision),
    cmocka_unit_test(adamw_leaves_a_weight_without_gradient_to_decay),
    cmocka_unit_test(
        small_steps_add_up_in_theta_and_reach_the_low_precision_copy),
    cmocka_unit_test(adamw_clips_a_large_gradient_only),
    cmocka_unit_test(adamw_changes_nothing_where_the_norm_is_not_finite),
    cmocka_unit_test(adamw_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
