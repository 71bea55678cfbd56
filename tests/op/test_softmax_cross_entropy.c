/* The cross-entropy loss and its gradient against double precision, also where
 * a loss is not finite. */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct loss_case {
    int64_t n_images, n_classes;
    float smoothing, grad_scale, spread;
} loss_case;

/* out: the loss's two halves, then dlogits. */
static void compute(op_env *env, const void *context, float *out)
{
    const loss_case *c = context;
    int64_t n = c->n_images * c->n_classes;
    float *logits = op_random(1, n);
    int32_t *labels = op_host(c->n_images * 4);
    for (int64_t i = 0; i < n; i++)
        logits[i] *= c->spread;
    for (int64_t b = 0; b < c->n_images; b++)
        labels[b] = (int32_t)(b * 7 % c->n_classes);
    double loss;
    double *d_loss = op_put(env, NULL, sizeof loss);
    float *dlogits = op_put_floats(env, NULL, n);
    op_ok(env->ops->softmax_cross_entropy(
        env->stream, d_loss, dlogits, op_put_floats(env, logits, n),
        op_put(env, labels, c->n_images * 4), c->smoothing, c->grad_scale,
        c->n_images, c->n_classes));
    op_get(env, d_loss, &loss, sizeof loss);
    memcpy(out, &loss, sizeof loss);
    op_get_floats(env, dlogits, out + 2, n);
    free(logits);
    free(labels);
}

static void check(const loss_case *c)
{
    int64_t n = c->n_images * c->n_classes;
    float *logits = op_random(1, n), *out = op_host((n + 2) * 4);
    double want = 0.0, loss;
    op_env env;
    op_open(&env, 2);
    compute(&env, c, out);
    op_close(&env);
    memcpy(&loss, out, sizeof loss);
    double s = c->smoothing, n_c = (double)c->n_classes;
    for (int64_t b = 0; b < c->n_images; b++) {
        const float *row = logits + b * c->n_classes;
        int64_t label = b * 7 % c->n_classes;
        double max = -INFINITY, sum = 0.0;
        for (int64_t k = 0; k < c->n_classes; k++)
            max = fmax(max, (double)(row[k] * c->spread));
        for (int64_t k = 0; k < c->n_classes; k++)
            sum += exp((double)(row[k] * c->spread) - max);
        for (int64_t k = 0; k < c->n_classes; k++) {
            double nll = max + log(sum) - (double)(row[k] * c->spread);
            want += (k == label ? (1.0 - s) * nll : 0.0) + s * nll / n_c;
            double grad = exp(-nll) - (k == label ? 1.0 - s : 0.0) - s / n_c;
            op_close_to(out[2 + b * c->n_classes + k], c->grad_scale * grad,
                        c->grad_scale, 1);
        }
    }
    op_close_to(loss, want, 1.0 + fabs(want), 1);
    free(logits);
    free(out);
}

static void loss_and_gradient_match_double_precision(void **state)
{
    (void)state;
    const loss_case cases[] = {
        {1, 1, 0.0f, 1.0f, 1.0f},     {3, 2, 0.1f, 0.5f, 1.0f},
        {8, 10, 0.0f, 0.125f, 10.0f}, {129, 37, 0.1f, 1.0f, 30.0f},
        {70, 1000, 0.2f, 2.0f, 5.0f}, {5, 9, 0.0f, 1.0f, 300.0f}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&cases[i]);
}

static void loss_of_no_images_is_zero(void **state)
{
    (void)state;
    const loss_case c = {0, 10, 0.0f, 1.0f, 1.0f};
    check(&c);
}

static void loss_refuses_a_label_that_is_no_class(void **state)
{
    (void)state;
    const float x[2] = {0};
    op_env env;
    op_open(&env, 1);
    for (int32_t label = -1; label <= 2; label += 3) {
        mm_status st = env.ops->softmax_cross_entropy(
            env.stream, op_put(&env, NULL, sizeof(double)),
            op_put_floats(&env, NULL, 2), op_put_floats(&env, x, 2),
            op_put(&env, &label, sizeof label), 0.0f, 1.0f, 1, 2);
        /* A device that runs behind says so when it is waited for. */
        if (st == MM_OK)
            st = mm_stream_sync(env.stream);
        assert_int_equal(st, MM_E_ARG);
        assert_non_null(strstr(mm_fail_message(), "of image 0"));
        op_ok(mm_stream_sync(env.stream));
    }
    op_close(&env);
}

static void a_loss_that_is_not_finite_leaves_nan_in_the_gradient(void **state)
{
    (void)state;
    const float inf = INFINITY;
    /* The label's probability is 0; a NaN; an infinite mean beside a finite
     * loss of the label; an infinite logit. */
    const float logits[4][3] = {
        {-inf, 0, 0}, {0, NAN, 0}, {0, -inf, 0}, {0, inf, 0}};
    const int32_t label = 0;
    for (int i = 0; i < 4; i++) {
        double loss;
        float dlogits[3];
        bool has_nan = false;
        op_env env;
        op_open(&env, 1);
        double *d_loss = op_put(&env, NULL, sizeof loss);
        float *d_dlogits = op_put_floats(&env, NULL, 3);
        op_ok(env.ops->softmax_cross_entropy(
            env.stream, d_loss, d_dlogits, op_put_floats(&env, logits[i], 3),
            op_put(&env, &label, sizeof label), 0.1f, 1.0f, 1, 3));
        op_get(&env, d_loss, &loss, sizeof loss);
        op_get_floats(&env, d_dlogits, dlogits, 3);
        for (int c = 0; c < 3; c++)
            has_nan = has_nan || isnan(dlogits[c]);
        assert_false((bool)isfinite(loss));
        assert_true(has_nan);
        op_close(&env);
    }
}

static void loss_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const loss_case c = {333, 211, 0.1f, 1.0f, 4.0f};
    op_same_for_any_threads(compute, &c, c.n_images * c.n_classes + 2);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(loss_and_gradient_match_double_precision),
    cmocka_unit_test(loss_of_no_images_is_zero),
    cmocka_unit_test(loss_refuses_a_label_that_is_no_class),
    cmocka_unit_test(a_loss_that_is_not_finite_leaves_nan_in_the_gradient),
    cmocka_unit_test(loss_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
