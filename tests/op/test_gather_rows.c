/* Picking rows by their index.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <stdlib.h>

enum { N_FROM = 37 };

static void gather_rows_picks_rows_by_their_index(void **state)
{
    (void)state;
    static const int64_t cases[][2] = {
        {1, 1}, {5, 3}, {0, 4}, {4, 0}, {300, 130}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int64_t n_rows = cases[c][0], width = cases[c][1], n = n_rows * width;
        float *from = op_random_acts(2, N_FROM * width), *out = op_host(n * 4);
        int64_t *index = op_host(n_rows * (int64_t)sizeof *index);
        for (int64_t i = 0; i < n_rows; i++)
            index[i] = (i * 23 + 36) % N_FROM; /* the last row first */
        op_env env;
        op_open(&env, 2);
        mm_act *to = op_put_acts(&env, NULL, n);
        op_ok(env.ops->gather_rows(
            env.stream, to, op_put_acts(&env, from, N_FROM * width),
            op_put(&env, index, n_rows * (int64_t)sizeof *index), n_rows,
            width));
        op_get_acts(&env, to, out, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(out[i] == from[index[i / width] * width + i % width]);
        op_close(&env);
        free(from);
        free(index);
        free(out);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(gather_rows_picks_rows_by_their_index),
};
OP_MAIN(tests)
