/* Logits of normalised features, and their gradient against finite differences.
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>

typedef struct logits_case {
    int64_t n_images, embed_dim, n_classes;
} logits_case;

static int64_t n_out_of(const logits_case *c)
{
    return c->n_images * (c->n_classes + 1 + c->embed_dim);
}

/* out: logits, inv_norm, dfeatures. */
static void compute(op_env *env, const void *context, float *out)
{
    const logits_case *c = context;
    int64_t n_f = c->n_images * c->embed_dim, n_l = c->n_images * c->n_classes;
    float *f = op_random(1, n_f),
          *head = op_random(2, c->n_classes * c->embed_dim);
    float *dlogits = op_random(3, n_l);
    float *d_f = op_put_floats(env, f, n_f);
    float *d_head = op_put_floats(env, head, c->n_classes * c->embed_dim);
    float *logits = op_put_floats(env, NULL, n_l);
    float *inv_norm = op_put_floats(env, NULL, c->n_images);
    float *df = op_put_floats(env, NULL, n_f);
    op_ok(env->ops->normalized_logits(env->stream, logits, inv_norm, d_f,
                                      d_head, c->n_images, c->embed_dim,
                                      c->n_classes));
    op_ok(env->ops->normalized_logits_grad(
        env->stream, df, op_put_floats(env, dlogits, n_l), d_f, inv_norm,
        d_head, c->n_images, c->embed_dim, c->n_classes));
    op_get_floats(env, logits, out, n_l);
    op_get_floats(env, inv_norm, out + n_l, c->n_images);
    op_get_floats(env, df, out + n_l + c->n_images, n_f);
    free(f);
    free(head);
    free(dlogits);
}

/* Sum over classes of dlogits logit, whose gradient is wanted. */
static double objective(const logits_case *c, const double *f,
                        const float *head, const float *dlogits, double *logits)
{
    double squares = 0.0, total = 0.0;
    for (int64_t e = 0; e < c->embed_dim; e++)
        squares += f[e] * f[e];
    for (int64_t k = 0; k < c->n_classes; k++) {
        double dot = 0.0;
        for (int64_t e = 0; e < c->embed_dim; e++)
            dot += f[e] * head[k * c->embed_dim + e];
        logits[k] = dot / sqrt(squares);
        total += dlogits[k] * logits[k];
    }
    return total;
}

static void check(const logits_case *c)
{
    int64_t n_e = c->embed_dim, n_c = c->n_classes;
    float *f = op_random(1, c->n_images * n_e), *head = op_random(2, n_c * n_e);
    float *dlogits = op_random(3, c->n_images * n_c);
    float *out = op_host(n_out_of(c) * (int64_t)sizeof *out);
    double *row = op_host(n_e * (int64_t)sizeof *row);
    double *logits = op_host(n_c * (int64_t)sizeof *logits);
    op_env env;
    op_open(&env, 2);
    compute(&env, c, out);
    op_close(&env);
    const float *inv_norm = out + c->n_images * n_c;
    const float *df = inv_norm + c->n_images;
    for (int64_t b = 0; b < c->n_images; b++) {
        const float *dl = dlogits + b * n_c;
        double squares = 0.0;
        for (int64_t e = 0; e < n_e; e++) {
            row[e] = f[b * n_e + e];
            squares += row[e] * row[e];
        }
        objective(c, row, head, dl, logits);
        for (int64_t k = 0; k < n_c; k++)
            op_close_to(out[b * n_c + k], logits[k], sqrt((double)n_e), n_e);
        double inv = 1.0 / sqrt(squares);
        op_close_to(inv_norm[b], inv, inv, n_e);
        double scale = inv * (double)n_c * sqrt((double)n_e + 1.0);
        for (int64_t e = 0; e < n_e; e += 1 + n_e / 9) {
            const double h = 1e-5, at = row[e];
            row[e] = at + h;
            double above = objective(c, row, head, dl, logits);
            row[e] = at - h;
            double below = objective(c, row, head, dl, logits);
            row[e] = at;
            op_close_to(df[b * n_e + e], (above - below) / (2.0 * h), scale,
                        n_c + n_e);
        }
    }
    free(f);
    free(head);
    free(dlogits);
    free(out);
    free(row);
    free(logits);
}

static void logits_and_their_gradient_match_finite_differences(void **state)
{
    (void)state;
    const logits_case cases[] = {{1, 2, 1},   {3, 5, 7},     {4, 32, 6},
                                 {9, 65, 33}, {2, 512, 100}, {0, 8, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&cases[i]);
}

static void logits_have_the_same_bits_when_repeated(void **state)
{
    (void)state;
    const logits_case c = {300, 128, 50};
    op_same_when_repeated(compute, &c, n_out_of(&c));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(logits_and_their_gradient_match_finite_differences),
    cmocka_unit_test(logits_have_the_same_bits_when_repeated),
};
OP_MAIN(tests)
