/* Positional embeddings for another grid; test_convert.py compares with
 * open_clip. */
#include "src/model/positions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

enum { WIDTH = 3, MOST = (1 + 16 * 16) * WIDTH };

/** Token 0: -1; token (y, x), channel c: c + a * y + b * x. */
static void fill_plane(float *out, int64_t grid, double a, double b)
{
    for (int c = 0; c < WIDTH; c++)
        *out++ = -1;
    for (int64_t y = 0; y < grid; y++)
        for (int64_t x = 0; x < grid; x++)
            for (int c = 0; c < WIDTH; c++)
                *out++ = (float)(c + a * (double)y + b * (double)x);
}

static void a_grid_is_the_root_of_the_patches(void **state)
{
    (void)state;
    assert_int_equal(mm_positions_grid(50), 7);
    assert_int_equal(mm_positions_grid(577), 24);
    assert_int_equal(mm_positions_grid(2), 1);
    assert_int_equal(mm_positions_grid(1), 0);
    assert_int_equal(mm_positions_grid(51), 0);
    assert_int_equal(mm_positions_grid(-3), 0);
}

static void a_constant_stays_and_so_does_the_class_token(void **state)
{
    (void)state;
    float in[MOST], out[MOST];
    for (int64_t to = 1; to <= 16; to++) {
        fill_plane(in, 6, 0, 0);
        assert_int_equal(mm_positions_resize(in, 6, to, WIDTH, out), MM_OK);
        for (int c = 0; c < WIDTH; c++)
            assert_float_equal(out[c], -1, 0);
        for (int64_t i = WIDTH; i < (1 + to * to) * WIDTH; i++)
            assert_float_equal(out[i], (double)(i % WIDTH), 1e-6);
    }
}

/* A cubic of Keys' family keeps straight lines, away from the edges. */
static void a_slope_is_kept_in_the_middle(void **state)
{
    (void)state;
    float in[MOST], out[MOST];
    fill_plane(in, 8, 2, -3);
    assert_int_equal(mm_positions_resize(in, 8, 16, WIDTH, out), MM_OK);
    for (int64_t y = 4; y < 12; y++)
        for (int64_t x = 4; x < 12; x++) {
            double at_y = ((double)y + 0.5) / 2 - 0.5;
            double at_x = ((double)x + 0.5) / 2 - 0.5;
            assert_float_equal(out[(1 + y * 16 + x) * WIDTH],
                               (float)(2 * at_y - 3 * at_x), 1e-5f);
        }
}

static void rows_and_columns_are_not_confused(void **state)
{
    (void)state;
    float in[MOST], out[MOST];
    fill_plane(in, 4, 1, 0);
    assert_int_equal(mm_positions_resize(in, 4, 2, WIDTH, out), MM_OK);
    assert_float_equal(out[WIDTH], out[2 * WIDTH], 1e-6);
    assert_true(out[3 * WIDTH] > out[WIDTH] + 1.5f);
}

static void the_same_grid_is_a_copy(void **state)
{
    (void)state;
    float in[MOST], out[MOST];
    for (int i = 0; i < MOST; i++)
        in[i] = (float)sin(i);
    assert_int_equal(mm_positions_resize(in, 16, 16, WIDTH, out), MM_OK);
    assert_memory_equal(in, out, sizeof in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grid_is_the_root_of_the_patches),
        cmocka_unit_test(a_constant_stays_and_so_does_the_class_token),
        cmocka_unit_test(a_slope_is_kept_in_the_middle),
        cmocka_unit_test(rows_and_columns_are_not_confused),
        cmocka_unit_test(the_same_grid_is_a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
