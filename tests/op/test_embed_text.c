/* Text embedding: looked-up tokens plus positions, exactly.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <stdlib.h>

enum { N_TABLE = 29 };

typedef struct text_case {
    int64_t n_texts, n_tokens, width;
} text_case;

static int32_t *make_tokens(const text_case *c)
{
    int64_t n = c->n_texts * c->n_tokens;
    int32_t *tokens = op_host(n * (int64_t)sizeof *tokens);
    for (int64_t i = 0; i < n; i++)
        tokens[i] = (int32_t)((i * 11 + N_TABLE - 1) % N_TABLE);
    return tokens;
}

static void compute(op_env *env, const void *context, float *out)
{
    const text_case *c = context;
    int64_t n_tokens = c->n_texts * c->n_tokens, n = n_tokens * c->width;
    int32_t *tokens = make_tokens(c);
    float *table = op_random(1, N_TABLE * c->width);
    float *pos = op_random(2, c->n_tokens * c->width);
    mm_act *x = op_put_acts(env, NULL, n);
    op_ok(env->ops->embed_text(
        env->stream, x, op_put(env, tokens, n_tokens * (int64_t)sizeof *tokens),
        op_put_floats(env, table, N_TABLE * c->width),
        op_put_floats(env, pos, c->n_tokens * c->width), c->n_texts,
        c->n_tokens, c->width));
    op_get_acts(env, x, out, n);
    free(tokens);
    free(table);
    free(pos);
}

static void embed_text_adds_positions_to_looked_up_tokens(void **state)
{
    (void)state;
    static const text_case cases[] = {
        {1, 1, 1}, {3, 5, 7}, {0, 5, 7}, {2, 77, 64}, {4, 11, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const text_case *c = &cases[i];
        int64_t n = c->n_texts * c->n_tokens * c->width;
        float *out = op_host(n * 4);
        op_env env;
        op_open(&env, 2);
        compute(&env, c, out);
        op_close(&env);
        int32_t *tokens = make_tokens(c);
        float *table = op_random(1, N_TABLE * c->width);
        float *pos = op_random(2, c->n_tokens * c->width);
        for (int64_t at = 0; at < n; at++) {
            int64_t row = at / c->width, j = at % c->width;
            float want = table[tokens[row] * c->width + j] +
                         pos[row % c->n_tokens * c->width + j];
            assert_true(out[at] == op_act_of(want)); /* exactly rounded */
        }
        free(out);
        free(tokens);
        free(table);
        free(pos);
    }
}

static void embed_text_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const text_case c = {40, 13, 96};
    op_same_for_any_threads(compute, &c, c.n_texts * c.n_tokens * c.width);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(embed_text_adds_positions_to_looked_up_tokens),
    cmocka_unit_test(embed_text_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
