/* Linear layers with bias, activation and residual against double precision,
 * and the accuracy of the activations.
 *
 * ctest: cuda=tf32,bf16 no_epilogues=fp32
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Which optional arguments a call has. */
enum { BIAS = 1, RESIDUAL = 2, IN_PLACE = 4, ACTIVATE = 8, KEEP_PRE = 16 };

typedef struct linear_case {
    int64_t n_rows, n_in, n_out;
    int flags;
    mm_activation activation;
} linear_case;

/* out: y, then pre where it is kept. */
static void compute(op_env *env, const void *context, float *out)
{
    const linear_case *c = context;
    int64_t n_y = c->n_rows * c->n_out;
    float *x = op_random_acts(1, c->n_rows * c->n_in);
    float *w = op_random_acts(2, c->n_out * c->n_in);
    float *bias = op_random_acts(3, c->n_out);
    float *residual = op_random_acts(4, n_y);
    mm_act *dx = op_put_acts(env, x, c->n_rows * c->n_in);
    mm_act *dw = op_put_acts(env, w, c->n_out * c->n_in);
    mm_act *db = c->flags & BIAS ? op_put_acts(env, bias, c->n_out) : NULL;
    mm_act *dr = c->flags & RESIDUAL ? op_put_acts(env, residual, n_y) : NULL;
    mm_act *dy = c->flags & IN_PLACE ? dr : op_put_acts(env, NULL, n_y);
    if (c->flags & ACTIVATE) {
        mm_act *pre = c->flags & KEEP_PRE ? op_put_acts(env, NULL, n_y) : NULL;
        op_ok(env->ops->linear_act(env->stream, dy, pre, dx, dw, db,
                                   c->activation, c->n_rows, c->n_in,
                                   c->n_out));
        if (pre)
            op_get_acts(env, pre, out + n_y, n_y);
    } else {
        op_ok(env->ops->linear(env->stream, dy, dx, dw, db, dr, c->n_rows,
                               c->n_in, c->n_out));
    }
    op_get_acts(env, dy, out, n_y);
    free(x);
    free(w);
    free(bias);
    free(residual);
}

static void check(const linear_case *c)
{
    int64_t n_y = c->n_rows * c->n_out;
    float *x = op_random_acts(1, c->n_rows * c->n_in);
    float *w = op_random_acts(2, c->n_out * c->n_in);
    float *bias = op_random_acts(3, c->n_out);
    float *residual = op_random_acts(4, n_y);
    float *out = op_host(2 * n_y * (int64_t)sizeof *out);
    op_env env;
    op_open(&env, 2);
    compute(&env, c, out);
    op_close(&env);
    for (int64_t i = 0; i < c->n_rows; i++)
        for (int64_t j = 0; j < c->n_out; j++) {
            int64_t at = i * c->n_out + j;
            double sum = c->flags & BIAS ? bias[j] : 0.0;
            sum += c->flags & RESIDUAL ? residual[at] : 0.0;
            double size = 1.0 + fabs(sum);
            for (int64_t k = 0; k < c->n_in; k++) {
                double term = (double)x[i * c->n_in + k] * w[j * c->n_in + k];
                sum += term;
                size += fabs(term);
            }
            if (c->flags & KEEP_PRE)
                op_act_close_to(out[n_y + at], sum, size, c->n_in);
            if (c->flags & ACTIVATE) {
                /* Of the sum as it was rounded; slopes are below 1.2. */
                size += 1.2 * op_act_scale(sum, c->n_in);
                sum = op_activation(c->activation, sum);
            }
            op_act_close_to(out[at], sum, size, c->n_in);
        }
    free(x);
    free(w);
    free(bias);
    free(residual);
    free(out);
}

static void
linear_matches_double_precision_for_all_optional_arguments(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1},     {17, 5, 9},
                                       {50, 64, 32},  {147, 300, 50},
                                       {3, 513, 770}, {0, 4, 4}};
    static const int flags[] = {0,
                                BIAS,
                                RESIDUAL,
                                BIAS | RESIDUAL,
                                RESIDUAL | IN_PLACE,
                                BIAS | RESIDUAL | IN_PLACE};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++) {
            linear_case c = {sizes[s][0], sizes[s][1], sizes[s][2], flags[f],
                             MM_GELU};
            check(&c);
        }
}

static void linear_act_matches_double_precision_and_keeps_pre(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1}, {17, 5, 9}, {147, 300, 50}};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int variant = 0; variant < 8; variant++) {
            linear_case c = {sizes[s][0], sizes[s][1], sizes[s][2], ACTIVATE,
                             variant & 1 ? MM_QUICK_GELU : MM_GELU};
            c.flags |= variant & 2 ? BIAS : 0;
            c.flags |= variant & 4 ? KEEP_PRE : 0;
            check(&c);
        }
}

/* One input and one weight of 1: the activation alone. */
static void activations_are_accurate_over_their_whole_range(void **state)
{
    (void)state;
    enum { N = 40001 };
    float *x = op_host(N * 4), *y = op_host(N * 4);
    for (int i = 0; i < N; i++)
        x[i] = op_act_of((float)(i - N / 2) * 6e-4f);
    const float one = 1.0f;
    for (int a = 0; a < 2; a++) {
        mm_activation activation = a ? MM_QUICK_GELU : MM_GELU;
        op_env env;
        op_open(&env, 1);
        mm_act *dy = op_put_acts(&env, NULL, N);
        op_ok(env.ops->linear_act(env.stream, dy, NULL, op_put_acts(&env, x, N),
                                  op_put_acts(&env, &one, 1), NULL, activation,
                                  N, 1, 1));
        op_get_acts(&env, dy, y, N);
        for (int i = 0; i < N; i++)
            op_act_close_to(y[i], op_activation(activation, x[i]),
                            fmin(1.0, fabs(x[i])) + fabs((double)y[i]), 1);
        op_close(&env);
    }
    free(x);
    free(y);
}

/* Relative errors beforehand, by kernels/cuda/activation.cu; below 6.5 Phi is
 * less than 5e-11. What is below 2^-126 may be 0. */
static void activations_of_every_bf16_number_are_rounded_well(void **state)
{
    (void)state;
    if (op_act_error() == 0.0)
        return;
    float *x = op_every_bf16(), *y = op_host(OP_N_BF16 * 4);
    const float one = 1.0f;
    for (int a = 0; a < 2; a++) {
        mm_activation activation = a ? MM_QUICK_GELU : MM_GELU;
        op_env env;
        op_open(&env, 1);
        mm_act *dy = op_put_acts(&env, NULL, OP_N_BF16);
        op_ok(env.ops->linear_act(
            env.stream, dy, NULL, op_put_acts(&env, x, OP_N_BF16),
            op_put_acts(&env, &one, 1), NULL, activation, OP_N_BF16, 1, 1));
        op_get_acts(&env, dy, y, OP_N_BF16);
        for (int i = 0; i < OP_N_BF16; i++) {
            double want = op_activation(activation, x[i]);
            double relative = fabsf(x[i]) <= 6.5f ? 0x1p-18 : 0x1p-11;
            op_rounded_to_bf16(y[i], want,
                               relative * fabs(want) +
                                   0x1p-126 * (1.0 + fabs((double)x[i])));
        }
        op_close(&env);
    }
    free(x);
    free(y);
}

static void activations_pass_nan_and_survive_extremes(void **state)
{
    (void)state;
    /* A number near the largest, that every type has. */
    const float x[6] = {NAN, INFINITY, 0x1.cp127f, -0x1.cp127f, -0.0f, 1e-42f};
    const float one = 1.0f;
    for (int a = 0; a < 2; a++) {
        float y[6];
        op_env env;
        op_open(&env, 1);
        mm_act *dy = op_put_acts(&env, NULL, 6);
        op_ok(env.ops->linear_act(env.stream, dy, NULL, op_put_acts(&env, x, 6),
                                  op_put_acts(&env, &one, 1), NULL,
                                  a ? MM_QUICK_GELU : MM_GELU, 6, 1, 1));
        op_get_acts(&env, dy, y, 6);
        assert_true(isnan(y[0]));
        assert_true(y[1] == INFINITY && y[2] == x[2]);
        assert_true(y[3] == 0.0f && y[4] == 0.0f);
        assert_true(fabsf(y[5]) <= 1e-42f);
        op_close(&env);
    }
}

static void linear_has_the_same_bits_when_repeated(void **state)
{
    (void)state;
    const linear_case plain = {777, 300, 200, BIAS | RESIDUAL, MM_GELU};
    const linear_case act = {777, 300, 200, BIAS | ACTIVATE, MM_QUICK_GELU};
    op_same_when_repeated(compute, &plain, plain.n_rows * plain.n_out);
    op_same_when_repeated(compute, &act, act.n_rows * act.n_out);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(
        linear_matches_double_precision_for_all_optional_arguments),
    cmocka_unit_test(linear_act_matches_double_precision_and_keeps_pre),
    cmocka_unit_test(activations_are_accurate_over_their_whole_range),
    cmocka_unit_test(activations_of_every_bf16_number_are_rounded_well),
    cmocka_unit_test(activations_pass_nan_and_survive_extremes),
    cmocka_unit_test(linear_has_the_same_bits_when_repeated),
};
OP_MAIN(tests)
