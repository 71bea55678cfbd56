/* Gradients of linear layers against double precision, and the accuracy of the
 * activations' slopes.
 *
 * ctest: cuda=tf32,bf16 bias_sums=fp32,tf32,bf16 no_epilogues=bf16
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>

typedef struct grad_case {
    int64_t n_rows, n_in, n_out;
    bool accumulate;
    mm_activation activation;
} grad_case;

/* out: dx, then dpre, dw and dbias. */
static void compute(op_env *env, const void *context, float *out)
{
    const grad_case *c = context;
    int64_t n_x = c->n_rows * c->n_in, n_w = c->n_out * c->n_in;
    float *x = op_random_acts(1, n_x);
    float *dy = op_random_acts(2, c->n_rows * c->n_out);
    float *w = op_random_acts(3, n_w),
          *old = op_random(4, n_w + c->n_out + c->n_in);
    mm_act *d_x = op_put_acts(env, x, n_x);
    mm_act *d_dy = op_put_acts(env, dy, c->n_rows * c->n_out);
    mm_act *d_w = op_put_acts(env, w, n_w);
    mm_act *dx = op_put_acts(env, NULL, n_x);
    mm_act *dpre = op_put_acts(env, NULL, n_x);
    float *dw = op_put_floats(env, old, n_w);
    float *dbias = op_put_floats(env, old + n_w, c->n_out);
    float *dbias_in = op_put_floats(env, old + n_w + c->n_out, c->n_in);
    op_ok(env->ops->linear_grad_input(env->stream, dx, d_dy, d_w, c->n_rows,
                                      c->n_in, c->n_out));
    op_ok(env->ops->linear_grad_act(env->stream, dpre, dbias_in, d_dy, d_w, d_x,
                                    c->activation, c->accumulate, c->n_rows,
                                    c->n_in, c->n_out));
    op_ok(env->ops->linear_grad_weight(env->stream, dw, dbias, d_dy, d_x,
                                       c->accumulate, c->n_rows, c->n_in,
                                       c->n_out));
    op_get_acts(env, dx, out, n_x);
    op_get_acts(env, dpre, out + n_x, n_x);
    op_get_floats(env, dw, out + 2 * n_x, n_w);
    op_get_floats(env, dbias, out + 2 * n_x + n_w, c->n_out);
    op_get_floats(env, dbias_in, out + 2 * n_x + n_w + c->n_out, c->n_in);
    free(x);
    free(dy);
    free(w);
    free(old);
}

static void check_inputs(const grad_case *c, const float *out)
{
    int64_t n_x = c->n_rows * c->n_in;
    float *x = op_random_acts(1, n_x);
    float *dy = op_random_acts(2, c->n_rows * c->n_out);
    float *w = op_random_acts(3, c->n_out * c->n_in);
    for (int64_t i = 0; i < c->n_rows; i++)
        for (int64_t j = 0; j < c->n_in; j++) {
            double sum = 0.0, size = 0.0;
            for (int64_t k = 0; k < c->n_out; k++) {
                double term = (double)dy[i * c->n_out + k] * w[k * c->n_in + j];
                sum += term;
                size += fabs(term);
            }
            int64_t at = i * c->n_in + j;
            op_act_close_to(out[at], sum, size, c->n_out);
            double slope = op_activation_slope(c->activation, x[at]);
            /* The sum, too, may be rounded, and then what the slope makes of
             * it. */
            size = 2.0 * size + op_act_scale(sum * slope, c->n_out);
            op_act_close_to(out[n_x + at], sum * slope, size, c->n_out);
        }
    free(x);
    free(dy);
    free(w);
}

static void check_weights(const grad_case *c, const float *out)
{
    int64_t n_x = c->n_rows * c->n_in, n_w = c->n_out * c->n_in;
    float *x = op_random_acts(1, n_x);
    float *dy = op_random_acts(2, c->n_rows * c->n_out);
    float *old = op_random(4, n_w + c->n_out + c->n_in);
    const float *dw = out + 2 * n_x, *dbias = dw + n_w;
    for (int64_t j = 0; j < c->n_out; j++) {
        double bias = c->accumulate ? old[n_w + j] : 0.0;
        double bias_size = fabs(bias);
        for (int64_t i = 0; i < c->n_rows; i++) {
            bias += dy[i * c->n_out + j];
            bias_size += fabs((double)dy[i * c->n_out + j]);
        }
        op_close_to(dbias[j], bias, bias_size, c->n_rows);
        for (int64_t k = 0; k < c->n_in; k++) {
            double sum = c->accumulate ? old[j * c->n_in + k] : 0.0;
            double size = fabs(sum);
            for (int64_t i = 0; i < c->n_rows; i++) {
                double term = (double)dy[i * c->n_out + j] * x[i * c->n_in + k];
                sum += term;
                size += fabs(term);
            }
            op_close_to(dw[j * c->n_in + k], sum, size, c->n_rows);
        }
    }
    free(x);
    free(dy);
    free(old);
}

static void check_bias_below(const grad_case *c, const float *out)
{
    int64_t n_x = c->n_rows * c->n_in, n_w = c->n_out * c->n_in;
    float *old = op_random(4, n_w + c->n_out + c->n_in);
    op_check_bias(out + 2 * n_x + n_w + c->n_out,
                  c->accumulate ? old + n_w + c->n_out : NULL, out + n_x,
                  c->n_in, c->n_rows, c->n_in);
    free(old);
}

static int64_t n_out_of(const grad_case *c)
{
    return 2 * c->n_rows * c->n_in + c->n_out * c->n_in + c->n_out + c->n_in;
}

static void linear_gradients_match_double_precision(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1},     {17, 5, 9},
                                       {50, 64, 32},  {147, 30, 300},
                                       {700, 65, 70}, {9, 800, 13}};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int variant = 0; variant < 4; variant++) {
            grad_case c = {sizes[s][0], sizes[s][1], sizes[s][2], variant & 1,
                           variant & 2 ? MM_QUICK_GELU : MM_GELU};
            float *out = op_host(n_out_of(&c) * (int64_t)sizeof *out);
            op_env env;
            op_open(&env, 2);
            compute(&env, &c, out);
            op_close(&env);
            check_inputs(&c, out);
            check_bias_below(&c, out);
            check_weights(&c, out);
            free(out);
        }
}

static void weight_gradient_of_no_rows_is_zero_unless_accumulating(void **state)
{
    (void)state;
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        const grad_case c = {0, 7, 5, accumulate, MM_GELU};
        float out[47];
        op_env env;
        op_open(&env, 2);
        compute(&env, &c, out);
        op_close(&env);
        check_bias_below(&c, out);
        check_weights(&c, out);
    }
}

static void weight_gradient_works_without_bias(void **state)
{
    (void)state;
    const float dy[2] = {2.0f, 3.0f}, x[2] = {5.0f, 7.0f};
    float dw = 0.0f;
    op_env env;
    op_open(&env, 1);
    float *d_dw = op_put(&env, NULL, sizeof dw);
    op_ok(env.ops->linear_grad_weight(env.stream, d_dw, NULL,
                                      op_put_acts(&env, dy, 2),
                                      op_put_acts(&env, x, 2), false, 2, 1, 1));
    op_get_floats(&env, d_dw, &dw, 1);
    assert_true(dw == 31.0f);
    op_close(&env);
}

static void activation_slopes_are_accurate_over_their_whole_range(void **state)
{
    (void)state;
    enum { N = 24001 };
    float *x = op_host(N * 4), *dy = op_host(N * 4), *out = op_host(N * 4);
    const float one = 1.0f;
    for (int i = 0; i < N; i++) {
        x[i] = op_act_of((float)(i - N / 2) * 1e-3f);
        dy[i] = 1.0f;
    }
    for (int a = 0; a < 2; a++) {
        mm_activation activation = a ? MM_QUICK_GELU : MM_GELU;
        op_env env;
        op_open(&env, 1);
        mm_act *dpre = op_put_acts(&env, NULL, N);
        op_ok(env.ops->linear_grad_act(
            env.stream, dpre, NULL, op_put_acts(&env, dy, N),
            op_put_acts(&env, &one, 1), op_put_acts(&env, x, N), activation,
            false, N, 1, 1));
        op_get_acts(&env, dpre, out, N);
        for (int i = 0; i < N; i++)
            op_act_close_to(out[i], op_activation_slope(activation, x[i]), 1.0,
                            1);
        op_close(&env);
    }
    free(x);
    free(dy);
    free(out);
}

/* Absolute errors beforehand, by kernels/cuda/activation.cu. */
static void
activation_slopes_of_every_bf16_number_are_rounded_well(void **state)
{
    (void)state;
    if (op_act_error() == 0.0)
        return;
    enum { N = OP_N_BF16 };
    float *x = op_every_bf16(), *dy = op_host(N * 4), *out = op_host(N * 4);
    const float one = 1.0f;
    for (int i = 0; i < N; i++)
        dy[i] = 1.0f;
    for (int a = 0; a < 2; a++) {
        mm_activation activation = a ? MM_QUICK_GELU : MM_GELU;
        op_env env;
        op_open(&env, 1);
        mm_act *dpre = op_put_acts(&env, NULL, N);
        op_ok(env.ops->linear_grad_act(
            env.stream, dpre, NULL, op_put_acts(&env, dy, N),
            op_put_acts(&env, &one, 1), op_put_acts(&env, x, N), activation,
            false, N, 1, 1));
        op_get_acts(&env, dpre, out, N);
        for (int i = 0; i < N; i++) {
            /* Beyond, the difference quotient has no digits left. */
            double want = fabsf(x[i]) <= 32.0f
                              ? op_activation_slope(activation, x[i])
                              : x[i] > 0.0f;
            op_rounded_to_bf16(out[i], want, 1.5e-6);
        }
        op_close(&env);
    }
    free(x);
    free(dy);
    free(out);
}

static void linear_gradients_have_the_same_bits_when_repeated(void **state)
{
    (void)state;
    const grad_case c = {1111, 130, 270, true, MM_QUICK_GELU};
    op_same_when_repeated(compute, &c, n_out_of(&c));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(linear_gradients_match_double_precision),
    cmocka_unit_test(weight_gradient_of_no_rows_is_zero_unless_accumulating),
    cmocka_unit_test(weight_gradient_works_without_bias),
    cmocka_unit_test(activation_slopes_are_accurate_over_their_whole_range),
    cmocka_unit_test(activation_slopes_of_every_bf16_number_are_rounded_well),
    cmocka_unit_test(linear_gradients_have_the_same_bits_when_repeated),
};
OP_MAIN(tests)
