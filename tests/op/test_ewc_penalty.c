/* The EWC penalty and its gradient against the formula and finite differences.
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float lambda = 50.0f;

typedef struct ewc_data {
    float *grad, *theta, *old, *fisher;
} ewc_data;

static ewc_data make(int64_t n)
{
    ewc_data d = {op_random(1, n), op_random(2, n), op_random(3, n),
                  op_random(4, n)};
    for (int64_t i = 0; i < n; i++)
        d.fisher[i] *= d.fisher[i];
    return d;
}

static void release(ewc_data *d)
{
    free(d->grad);
    free(d->theta);
    free(d->old);
    free(d->fisher);
}

/* out: the penalty's two halves, then grad. `skip` elements come before. */
static void run(op_env *env, int64_t n, int64_t skip, float *out)
{
    ewc_data d = make(n + skip);
    double penalty;
    double *d_penalty = op_put(env, NULL, sizeof penalty);
    float *grad = op_put_floats(env, d.grad, n + skip);
    op_ok(env->ops->ewc_penalty(env->stream, d_penalty, grad + skip,
                                op_put_floats(env, d.theta, n + skip) + skip,
                                op_put_floats(env, d.old, n + skip) + skip,
                                op_put_floats(env, d.fisher, n + skip) + skip,
                                lambda, n));
    op_get(env, d_penalty, &penalty, sizeof penalty);
    memcpy(out, &penalty, sizeof penalty);
    float *all = op_host((n + skip) * 4);
    op_get_floats(env, grad, all, n + skip);
    memcpy(out + 2, all + skip, (size_t)n * 4);
    free(all);
    release(&d);
}

static void compute(op_env *env, const void *context, float *out)
{
    run(env, *(const int64_t *)context, 0, out);
}

/* The gradient's operations are each rounded to fp32: one right answer. */
static void check(int64_t n, int64_t skip)
{
    ewc_data d = make(n + skip);
    float *out = op_host((n + 2) * 4);
    double penalty, want = 0.0;
    op_env env;
    op_open(&env, 2);
    run(&env, n, skip, out);
    op_close(&env);
    memcpy(&penalty, out, sizeof penalty);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i + skip;
        volatile float move = d.theta[at] - d.old[at];
        volatile float slope = d.fisher[at] * move;
        volatile float added = lambda * slope;
        assert_true(out[2 + i] == d.grad[at] + added);
        double exact = (double)d.theta[at] - (double)d.old[at];
        want += 0.5 * lambda * (double)d.fisher[at] * exact * exact;
    }
    op_close_to(penalty, want, want, 1);
    free(out);
    release(&d);
}

static void penalty_and_gradient_match_the_formula(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 3, 1000, 4097, 300007};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        check(sizes[s], 0);
    check(1000, 1);
}

/* The gradient is the penalty's slope: central differences along itself. */
static void gradient_agrees_with_finite_differences(void **state)
{
    (void)state;
    enum { N = 5000 };
    ewc_data d = make(N);
    float *zero = op_host(N * 4), *slope = op_host(N * 4);
    float *moved = op_host(N * 4);
    double value[2], norm = 0.0, step = 0.0;
    op_env env;
    op_open(&env, 1);
    double *penalty = op_put(&env, NULL, sizeof *penalty);
    float *grad = op_put_floats(&env, zero, N);
    float *old = op_put_floats(&env, d.old, N);
    float *fisher = op_put_floats(&env, d.fisher, N);
    op_ok(env.ops->ewc_penalty(env.stream, penalty, grad,
                               op_put_floats(&env, d.theta, N), old, fisher,
                               lambda, N));
    op_get_floats(&env, grad, slope, N);
    for (int i = 0; i < N; i++)
        norm += (double)slope[i] * (double)slope[i];
    for (int side = 0; side < 2; side++) {
        step = (side ? 1.0 : -1.0) * 1e-3;
        for (int i = 0; i < N; i++)
            moved[i] =
                d.theta[i] + (float)(step * (double)slope[i] / sqrt(norm));
        op_ok(env.ops->ewc_penalty(env.stream, penalty, grad,
                                   op_put_floats(&env, moved, N), old, fisher,
                                   lambda, N));
        op_get(&env, penalty, &value[side], sizeof *value);
    }
    op_close(&env);
    /* A quadratic: exact but for the rounding of `moved`. */
    double rise = (value[1] - value[0]) / (2.0 * step);
    assert_true(fabs(rise - sqrt(norm)) < 1e-4 * sqrt(norm));
    free(zero);
    free(slope);
    free(moved);
    release(&d);
}

static void penalty_refuses_missing_arguments(void **state)
{
    (void)state;
    op_env env;
    op_open(&env, 1);
    float *x = op_put_floats(&env, NULL, 1);
    double *p = op_put(&env, NULL, sizeof *p);
    const mm_ops *ops = env.ops;
    assert_int_equal(ops->ewc_penalty(env.stream, NULL, x, x, x, x, 1, 1),
                     MM_E_ARG);
    assert_int_equal(ops->ewc_penalty(env.stream, p, x, x, NULL, x, 1, 1),
                     MM_E_ARG);
    assert_int_equal(ops->ewc_penalty(env.stream, p, x, x, x, x, 1, -1),
                     MM_E_ARG);
    op_close(&env);
}

static void penalty_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const int64_t n = 3000001;
    op_same_for_any_threads(compute, &n, n + 2);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(penalty_and_gradient_match_the_formula),
    cmocka_unit_test(gradient_agrees_with_finite_differences),
    cmocka_unit_test(penalty_refuses_missing_arguments),
    cmocka_unit_test(penalty_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
