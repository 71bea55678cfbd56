/* Copying rows between buffers with gaps between them, which must not change.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <stdlib.h>

static void copy_rows_moves_rows_and_nothing_between_them(void **state)
{
    (void)state;
    static const int64_t cases[][4] = {
        /* rows, width, to, from */
        {1, 1, 1, 1}, {5, 3, 7, 4},           {0, 3, 3, 3},
        {4, 0, 2, 2}, {128, 64, 64, 17 * 64}, {300, 130, 512, 130}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int64_t n_rows = cases[c][0], width = cases[c][1];
        int64_t to_stride = cases[c][2], from_stride = cases[c][3];
        int64_t n_to = n_rows * to_stride, n_from = n_rows * from_stride;
        float *to = op_random_acts(1, n_to);
        float *from = op_random_acts(2, n_from);
        float *out = op_host(n_to * 4);
        op_env env;
        op_open(&env, 2);
        mm_act *d_to = op_put_acts(&env, to, n_to);
        op_ok(env.ops->copy_rows(env.stream, d_to, to_stride,
                                 op_put_acts(&env, from, n_from), from_stride,
                                 n_rows, width));
        op_get_acts(&env, d_to, out, n_to);
        for (int64_t i = 0; i < n_to; i++) {
            int64_t row = i / to_stride, j = i % to_stride;
            assert_true(out[i] ==
                        (j < width ? from[row * from_stride + j] : to[i]));
        }
        op_close(&env);
        free(to);
        free(from);
        free(out);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(copy_rows_moves_rows_and_nothing_between_them),
};
OP_MAIN(tests)
