/* Layer normalisation and its gradient against double precision, with gaps
 * between rows.
 *
 * ctest: cuda=bf16 bias_sums=bf16
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct norm_case {
    int64_t n_rows, width, stride;
    bool residual, in_place, accumulate;
    float offset; /* added to x: a mean far from zero */
} norm_case;

static float *make_x(const norm_case *c)
{
    float *x = op_random(1, c->n_rows * c->stride);
    for (int64_t i = 0; i < c->n_rows * c->stride; i++)
        x[i] = op_act_of(x[i] + c->offset);
    return x;
}

/* out: y, mean, rstd, dgamma, dbeta, dx (with what lies between its rows),
 * dbias. */
static void compute(op_env *env, const void *context, float *out)
{
    const norm_case *c = context;
    int64_t n_x = c->n_rows * c->stride, n_y = c->n_rows * c->width;
    float *x = make_x(c), *dy = op_random_acts(2, n_y);
    float *res = op_random_acts(3, n_x);
    float *gamma = op_random(4, c->width), *beta = op_random(5, c->width);
    mm_act *d_x = op_put_acts(env, x, n_x);
    float *d_gamma = op_put_floats(env, gamma, c->width);
    mm_act *y = op_put_acts(env, NULL, n_y);
    float *mean = op_put_floats(env, NULL, c->n_rows);
    float *rstd = op_put_floats(env, NULL, c->n_rows);
    op_reserve(env, 4, c->width, 1);
    op_ok(env->ops->layernorm(env->stream, y, mean, rstd, d_x, c->stride,
                              d_gamma, op_put_floats(env, beta, c->width),
                              1e-5f, c->n_rows, c->width));
    mm_act *residual = c->residual ? op_put_acts(env, res, n_x) : NULL;
    mm_act *dx = c->in_place ? residual : op_put_acts(env, res, n_x);
    /* In place also means: side by side, as a model's gradient has them. */
    float *both = op_host(2 * c->width * (int64_t)sizeof *both);
    memcpy(both, gamma, (size_t)c->width * sizeof *both);
    memcpy(both + c->width, beta, (size_t)c->width * sizeof *both);
    float *dgamma = op_put_floats(env, both, (c->in_place ? 2 : 1) * c->width);
    float *dbeta =
        c->in_place ? dgamma + c->width : op_put_floats(env, beta, c->width);
    float *dbias = op_put_floats(env, beta, c->width);
    op_ok(env->ops->layernorm_grad(env->stream, dx, dgamma, dbeta, dbias,
                                   residual, op_put_acts(env, dy, n_y), d_x,
                                   c->stride, mean, rstd, d_gamma,
                                   c->accumulate, c->n_rows, c->width));
    op_get_acts(env, y, out, n_y);
    op_get_floats(env, mean, out + n_y, c->n_rows);
    op_get_floats(env, rstd, out + n_y + c->n_rows, c->n_rows);
    out += n_y + 2 * c->n_rows;
    op_get_floats(env, dgamma, out, (c->in_place ? 2 : 1) * c->width);
    if (!c->in_place)
        op_get_floats(env, dbeta, out + c->width, c->width);
    op_get_acts(env, dx, out + 2 * c->width, n_x);
    op_get_floats(env, dbias, out + 2 * c->width + n_x, c->width);
    free(x);
    free(dy);
    free(res);
    free(gamma);
    free(beta);
    free(both);
}

static int64_t n_out_of(const norm_case *c)
{
    return c->n_rows * (c->width + 2 + c->stride) + 3 * c->width;
}

static void check_row(const norm_case *c, int64_t i, const float *out,
                      double *dgamma, double *dbeta)
{
    int64_t n = c->width, n_y = c->n_rows * n, n_x = c->n_rows * c->stride;
    float *x = make_x(c), *dy = op_random_acts(2, n_y);
    float *res = op_random_acts(3, n_x);
    float *gamma = op_random(4, n), *beta = op_random(5, n);
    const float *dx = out + n_y + 2 * c->n_rows + 2 * n + i * c->stride;
    const float *row = x + i * c->stride;
    double mean = 0.0, var = 0.0, mean_g = 0.0, mean_gx = 0.0;
    for (int64_t j = 0; j < n; j++)
        mean += row[j] / (double)n;
    for (int64_t j = 0; j < n; j++)
        var += (row[j] - mean) * (row[j] - mean) / (double)n;
    double rstd = 1.0 / sqrt(var + 1e-5);
    /* Subtracting the mean loses what its size takes from the mantissa. */
    double scale = 4.0 * (1.0 + fabs((double)c->offset)) * (1.0 + rstd);
    op_close_to(out[n_y + i], mean, 1.0 + fabs(mean), n);
    op_close_to(out[n_y + c->n_rows + i], rstd, rstd * scale, n);
    for (int64_t j = 0; j < n; j++) {
        double g = (double)dy[i * n + j] * gamma[j];
        double xhat = (row[j] - mean) * rstd;
        op_act_close_to(out[i * n + j], xhat * gamma[j] + beta[j], scale, n);
        mean_g += g / (double)n;
        mean_gx += g * xhat / (double)n;
        dgamma[j] += dy[i * n + j] * xhat;
        dbeta[j] += dy[i * n + j];
    }
    for (int64_t j = 0; j < c->stride; j++) {
        double old = res[i * c->stride + j];
        if (j >= n) {
            assert_true(dx[j] == (float)old);
            continue;
        }
        double g = (double)dy[i * n + j] * gamma[j];
        double xhat = (row[j] - mean) * rstd;
        double want = rstd * (g - mean_g - xhat * mean_gx);
        op_act_close_to(dx[j], want + (c->residual ? old : 0.0),
                        scale * (1.0 + rstd), n);
    }
    free(x);
    free(dy);
    free(res);
    free(gamma);
    free(beta);
}

static void check(const norm_case *c)
{
    float *out = op_host(n_out_of(c) * (int64_t)sizeof *out);
    float *gamma = op_random(4, c->width), *beta = op_random(5, c->width);
    double *dgamma = op_host(c->width * (int64_t)sizeof *dgamma);
    double *dbeta = op_host(c->width * (int64_t)sizeof *dbeta);
    op_env env;
    op_open(&env, 2);
    compute(&env, c, out);
    op_close(&env);
    for (int64_t i = 0; i < c->n_rows; i++)
        check_row(c, i, out, dgamma, dbeta);
    const float *got = out + c->n_rows * (c->width + 2);
    double scale = (1.0 + fabs((double)c->offset)) * (double)(c->n_rows + 1);
    for (int64_t j = 0; j < c->width; j++) {
        double old_gamma = c->accumulate ? gamma[j] : 0.0;
        double old_beta = c->accumulate ? beta[j] : 0.0;
        op_close_to(got[j], dgamma[j] + old_gamma, 3.0 * scale, c->width);
        op_close_to(got[c->width + j], dbeta[j] + old_beta, scale, 1);
    }
    const float *dx = got + 2 * c->width;
    op_check_bias(dx + c->n_rows * c->stride, c->accumulate ? beta : NULL, dx,
                  c->stride, c->n_rows, c->width);
    free(out);
    free(gamma);
    free(beta);
    free(dgamma);
    free(dbeta);
}

static void layernorm_and_its_gradient_match_double_precision(void **state)
{
    (void)state;
    const norm_case cases[] = {
        {1, 1, 1, false, false, false, 0.0f},
        {3, 7, 7, true, false, false, 0.0f},
        {5, 64, 192, true, true, true, 0.0f},
        {33, 100, 100, true, true, false, 3.0f},
        {131, 65, 70, false, false, true, 0.0f},
        {70, 768, 768, true, false, true, -20.0f},
        {0, 9, 9, false, false, false, 0.0f},
        {0, 9, 9, true, false, true, 0.0f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&cases[i]);
}

static void layernorm_needs_no_statistics(void **state)
{
    (void)state;
    const float x[4] = {1.0f, -1.0f, 1.0f, -1.0f};
    const float gamma[4] = {1.0f, 1.0f, 1.0f, 1.0f}, beta[4] = {0};
    float y[4];
    op_env env;
    op_open(&env, 1);
    mm_act *dy = op_put_acts(&env, NULL, 4);
    op_ok(env.ops->layernorm(env.stream, dy, NULL, NULL,
                             op_put_acts(&env, x, 4), 4,
                             op_put_floats(&env, gamma, 4),
                             op_put_floats(&env, beta, 4), 0.0f, 1, 4));
    op_get_acts(&env, dy, y, 4);
    assert_memory_equal(x, y, sizeof y);
    op_close(&env);
}

static void layernorm_gradient_refuses_too_little_scratch(void **state)
{
    (void)state;
    float f[4] = {0};
    mm_act *x = (mm_act *)f;
    op_env env;
    op_open(&env, 1);
    assert_int_equal(env.ops->layernorm_grad(env.stream, x, f, f, NULL, NULL, x,
                                             x, 2, f, f, f, false, 1, 2),
                     MM_E_ARG);
    op_close(&env);
}

static void layernorm_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const norm_case c = {1000, 200, 200, true, true, true, 0.5f};
    op_same_for_any_threads(compute, &c, n_out_of(&c));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(layernorm_and_its_gradient_match_double_precision),
    cmocka_unit_test(layernorm_needs_no_statistics),
    cmocka_unit_test(layernorm_gradient_refuses_too_little_scratch),
    cmocka_unit_test(layernorm_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
