/* Matrix products against double precision: orientations, long sums, strides,
 * beta, and invalid arguments.
 *
 * ctest: cuda=tf32,bf16
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>

typedef struct gemm_case {
    bool transpose_a, transpose_b;
    int64_t m, n, k;
    float beta;
} gemm_case;

static void compute(op_env *env, const void *context, float *out)
{
    const gemm_case *g = context;
    float *a = op_random(1, g->m * g->k), *b = op_random(2, g->k * g->n);
    float *c = op_random(3, g->m * g->n);
    float *dc = op_put_floats(env, c, g->m * g->n);
    op_ok(env->ops->gemm(env->stream, dc, op_put_floats(env, a, g->m * g->k),
                         op_put_floats(env, b, g->k * g->n), g->transpose_a,
                         g->transpose_b, g->m, g->n, g->k, g->beta));
    op_get_floats(env, dc, out, g->m * g->n);
    free(a);
    free(b);
    free(c);
}

static void check(const gemm_case *g)
{
    float *a = op_random(1, g->m * g->k), *b = op_random(2, g->k * g->n);
    float *c = op_random(3, g->m * g->n);
    float *out = op_host(g->m * g->n * (int64_t)sizeof *out);
    op_env env;
    op_open(&env, 2);
    compute(&env, g, out);
    op_close(&env);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double sum = g->beta * c[i * g->n + j], size = fabs(sum);
            for (int64_t k = 0; k < g->k; k++) {
                double x = g->transpose_a ? a[k * g->m + i] : a[i * g->k + k];
                double y = g->transpose_b ? b[j * g->k + k] : b[k * g->n + j];
                sum += x * y;
                size += fabs(x * y);
            }
            op_close_to(out[i * g->n + j], sum, size, g->k);
        }
    free(a);
    free(b);
    free(c);
    free(out);
}

static void gemm_matches_double_precision_for_every_orientation(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = {
        {1, 1, 1},    {5, 7, 3},      {6, 16, 8},    {12, 32, 16},
        {13, 33, 17}, {145, 97, 259}, {64, 64, 512}, {7, 800, 2}};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int flags = 0; flags < 8; flags++) {
            gemm_case g = {flags & 1,   flags & 2,   sizes[s][0],
                           sizes[s][1], sizes[s][2], flags & 4 ? 1.0f : 0.0f};
            check(&g);
        }
}

static void gemm_of_long_sums_matches_double_precision(void **state)
{
    (void)state;
    const gemm_case tall = {true, false, 9, 1600, 3100, 0.0f};
    const gemm_case deep = {true, false, 5, 20, 270000, 1.0f};
    check(&tall);
    check(&deep);
}

static void gemm_without_terms_leaves_beta_times_c(void **state)
{
    (void)state;
    for (int beta = 0; beta < 2; beta++) {
        const gemm_case none = {false, false, 3, 5, 0, (float)beta};
        check(&none);
        const gemm_case no_rows = {false, false, 0, 5, 4, (float)beta};
        check(&no_rows);
        const gemm_case no_cols = {false, false, 3, 0, 4, (float)beta};
        check(&no_cols);
    }
}

static void gemm_of_small_integers_is_exact(void **state)
{
    (void)state;
    enum { M = 150, N = 40, K = 300 };
    float *a = op_host(M * K * 4), *b = op_host(K * N * 4);
    float *out = op_host(M * N * 4);
    for (int i = 0; i < M * K; i++)
        a[i] = (float)(i % 13 - 6);
    for (int i = 0; i < K * N; i++)
        b[i] = (float)(i % 11 - 5);
    op_env env;
    op_open(&env, 2);
    float *c = op_put(&env, NULL, M * N * 4);
    op_ok(env.ops->gemm(env.stream, c, op_put_floats(&env, a, M * K),
                        op_put_floats(&env, b, K * N), false, false, M, N, K,
                        0.0f));
    op_get_floats(&env, c, out, M * N);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            int sum = 0;
            for (int k = 0; k < K; k++)
                sum += (int)a[i * K + k] * (int)b[k * N + j];
            assert_true(out[i * N + j] == (float)sum);
        }
    op_close(&env);
    free(a);
    free(b);
    free(out);
}

static void gemm_has_the_same_bits_when_repeated(void **state)
{
    (void)state;
    const gemm_case cases[] = {{false, true, 500, 300, 700, 0.0f},
                               {true, false, 96, 130, 3000, 1.0f},
                               {false, false, 33, 1000, 64, 0.0f}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        op_same_when_repeated(compute, &cases[i], cases[i].m * cases[i].n);
}

static void gemm_refuses_what_cannot_be_meant(void **state)
{
    (void)state;
    op_env env;
    op_open(&env, 1);
    float x[4] = {0};
    assert_int_equal(
        env.ops->gemm(env.stream, NULL, x, x, false, false, 1, 1, 1, 0.0f),
        MM_E_ARG);
    assert_int_equal(
        env.ops->gemm(env.stream, x, x, x, false, false, -1, 1, 1, 0.0f),
        MM_E_ARG);
    assert_int_equal(
        env.ops->gemm(env.stream, x, x, x, false, false, 1, 1, 1, 0.5f),
        MM_E_ARG);
    op_close(&env);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(gemm_matches_double_precision_for_every_orientation),
    cmocka_unit_test(gemm_of_long_sums_matches_double_precision),
    cmocka_unit_test(gemm_without_terms_leaves_beta_times_c),
    cmocka_unit_test(gemm_of_small_integers_is_exact),
    cmocka_unit_test(gemm_has_the_same_bits_when_repeated),
    cmocka_unit_test(gemm_refuses_what_cannot_be_meant),
};
OP_MAIN(tests)
