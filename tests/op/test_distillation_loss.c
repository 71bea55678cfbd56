/* The distillation loss and its gradient against the authors' formula in double
 * precision. */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct distill_case {
    int64_t n_images, n_classes, stride;
    float temperature, grad_scale, spread;
    bool accumulate;
} distill_case;

/** Columns that belong to others, and what is there before. */
static const float before = 0.75f;

static int64_t n_strided(const distill_case *c)
{
    return c->n_images ? (c->n_images - 1) * c->stride + c->n_classes : 0;
}

/* The student sees what the teacher saw, moved a little. */
static void make_logits(const distill_case *c, float **logits,
                        float **old_logits)
{
    int64_t n = c->n_images * c->n_classes, n_rows = n_strided(c);
    float *move = op_random(3, n_rows);
    *logits = op_random(2, n_rows);
    *old_logits = op_random(1, n);
    for (int64_t i = 0; i < n_rows; i++)
        (*logits)[i] = c->spread * ((*logits)[i] + 0.2f * move[i]);
    for (int64_t i = 0; i < n; i++)
        (*old_logits)[i] *= c->spread;
    free(move);
}

/* out: the loss's two halves, then dlogits. */
static void compute(op_env *env, const void *context, float *out)
{
    const distill_case *c = context;
    int64_t n = c->n_images * c->n_classes, n_rows = n_strided(c);
    float *logits, *old_logits, *there = op_host(n_rows * 4);
    make_logits(c, &logits, &old_logits);
    for (int64_t i = 0; i < n_rows; i++)
        there[i] = before;
    double loss;
    double *d_loss = op_put(env, NULL, sizeof loss);
    float *dlogits = op_put_floats(env, there, n_rows);
    op_ok(env->ops->distillation_loss(
        env->stream, d_loss, dlogits, op_put_floats(env, logits, n_rows),
        c->stride, op_put_floats(env, old_logits, n), c->temperature,
        c->grad_scale, c->accumulate, c->n_images, c->n_classes));
    op_get(env, d_loss, &loss, sizeof loss);
    memcpy(out, &loss, sizeof loss);
    op_get_floats(env, dlogits, out + 2, n_rows);
    free(logits);
    free(old_logits);
    free(there);
}

/** Probabilities as the authors write them: a softmax, to a power, divided by
 * its sum. */
static void smooth(const double *z, double temperature, int64_t n, double *p)
{
    double max = -INFINITY, sum = 0.0, sum_of_powers = 0.0;
    for (int64_t c = 0; c < n; c++)
        max = fmax(max, z[c]);
    for (int64_t c = 0; c < n; c++)
        sum += exp(z[c] - max);
    for (int64_t c = 0; c < n; c++)
        sum_of_powers += p[c] = pow(exp(z[c] - max) / sum, 1.0 / temperature);
    for (int64_t c = 0; c < n; c++)
        p[c] /= sum_of_powers;
}

static double reference(const double *z, const double *old_z,
                        double temperature, int64_t n)
{
    double *s = op_host(n * 8), *t = op_host(n * 8), sum = 0.0, loss = 0.0;
    smooth(z, temperature, n, s);
    smooth(old_z, temperature, n, t);
    for (int64_t c = 0; c < n; c++)
        sum += s[c] += 1e-5 / (double)n;
    for (int64_t c = 0; c < n; c++)
        loss -= t[c] * log(s[c] / sum);
    free(s);
    free(t);
    return loss;
}

/** The gradient by central differences of the loss in double. */
static void check_row(const distill_case *c, const float *logits,
                      const float *old_logits, const float *dlogits,
                      double *loss)
{
    const double h = 1e-5;
    int64_t n = c->n_classes;
    double *z = op_host(n * 8), *old_z = op_host(n * 8);
    for (int64_t k = 0; k < n; k++) {
        z[k] = (double)logits[k];
        old_z[k] = (double)old_logits[k];
    }
    *loss += reference(z, old_z, c->temperature, n);
    for (int64_t k = 0; k < n; k++) {
        z[k] += h;
        double slope = reference(z, old_z, c->temperature, n);
        z[k] -= 2.0 * h;
        slope = (slope - reference(z, old_z, c->temperature, n)) / (2.0 * h);
        z[k] += h;
        double there = c->accumulate ? before : 0.0;
        op_close_to(dlogits[k], there + c->grad_scale * slope,
                    there + c->grad_scale, 1);
    }
    free(z);
    free(old_z);
}

static void check(const distill_case *c)
{
    int64_t n = c->n_classes, n_rows = n_strided(c);
    float *logits, *old_logits, *out = op_host((n_rows + 2) * 4);
    double want = 0.0, loss;
    op_env env;
    make_logits(c, &logits, &old_logits);
    op_open(&env, 2);
    compute(&env, c, out);
    op_close(&env);
    memcpy(&loss, out, sizeof loss);
    for (int64_t b = 0; b < c->n_images; b++) {
        check_row(c, logits + b * c->stride, old_logits + b * n,
                  out + 2 + b * c->stride, &want);
        for (int64_t k = n; k < c->stride && b + 1 < c->n_images; k++)
            assert_true(out[2 + b * c->stride + k] == before);
    }
    op_close_to(loss, want, 1.0 + fabs(want), 1);
    free(logits);
    free(old_logits);
    free(out);
}

static void loss_and_gradient_match_the_formula_in_double(void **state)
{
    (void)state;
    const distill_case cases[] = {{1, 1, 1, 2.0f, 1.0f, 1.0f, false},
                                  {3, 2, 2, 2.0f, 0.5f, 1.0f, true},
                                  {8, 10, 14, 2.0f, 0.125f, 10.0f, false},
                                  {70, 37, 37, 1.0f, 1.0f, 30.0f, false},
                                  {33, 100, 101, 4.0f, 2.0f, 5.0f, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&cases[i]);
}

/* Probabilities of 0 on both sides: the floor keeps the logarithm finite. */
static void loss_of_a_student_who_is_sure_and_wrong_is_bounded(void **state)
{
    (void)state;
    const float student[2] = {500.0f, -500.0f}, teacher[2] = {-500.0f, 500.0f};
    double loss;
    float dlogits[2];
    op_env env;
    op_open(&env, 1);
    double *d_loss = op_put(&env, NULL, sizeof loss);
    float *d = op_put_floats(&env, NULL, 2);
    op_ok(env.ops->distillation_loss(
        env.stream, d_loss, d, op_put_floats(&env, student, 2), 2,
        op_put_floats(&env, teacher, 2), 2.0f, 1.0f, false, 1, 2));
    op_get(&env, d_loss, &loss, sizeof loss);
    op_get_floats(&env, d, dlogits, 2);
    op_close(&env);
    op_close_to(loss, log((1.0 + 1e-5) / 0.5e-5), 20.0, 1);
    assert_true(dlogits[0] == 0.0f && dlogits[1] == 0.0f);
}

static void loss_of_no_images_is_zero(void **state)
{
    (void)state;
    const distill_case c = {0, 10, 10, 2.0f, 1.0f, 1.0f, false};
    check(&c);
}

static void loss_refuses_what_makes_no_sense(void **state)
{
    (void)state;
    const float x[4] = {0};
    op_env env;
    op_open(&env, 1);
    double *loss = op_put(&env, NULL, sizeof *loss);
    float *d = op_put_floats(&env, x, 4), *z = op_put_floats(&env, x, 4);
    float *old = op_put_floats(&env, x, 4);
    mm_status (*op)(mm_stream *, double *, float *, const float *, int64_t,
                    const float *, float, float, bool, int64_t, int64_t) =
        env.ops->distillation_loss;
    assert_int_equal(op(env.stream, loss, d, z, 1, old, 2, 1, false, 2, 2),
                     MM_E_ARG);
    assert_int_equal(op(env.stream, loss, d, z, 2, old, 0, 1, false, 2, 2),
                     MM_E_ARG);
    assert_int_equal(op(env.stream, loss, d, z, 2, NULL, 2, 1, false, 2, 2),
                     MM_E_ARG);
    assert_int_equal(op(env.stream, loss, d, z, 2, old, 2, 1, false, -1, 2),
                     MM_E_ARG);
    assert_int_equal(op(env.stream, loss, d, z, 2, old, 2, 1, false, 2, 0),
                     MM_E_ARG);
    op_close(&env);
}

static void loss_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const distill_case c = {333, 211, 211, 2.0f, 1.0f, 4.0f, false};
    op_same_for_any_threads(compute, &c, n_strided(&c) + 2);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(loss_and_gradient_match_the_formula_in_double),
    cmocka_unit_test(loss_of_a_student_who_is_sure_and_wrong_is_bounded),
    cmocka_unit_test(loss_of_no_images_is_zero),
    cmocka_unit_test(loss_refuses_what_makes_no_sense),
    cmocka_unit_test(loss_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
