/* The kernels of the resampler against each other and against one sum;
 * tests/parity/test_transform.py compares the whole with Pillow. */
#include "src/image/resample_kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t state_of_noise = 12345;

static uint32_t noise(void)
{
    state_of_noise = state_of_noise * 1664525u + 1013904223u;
    return state_of_noise >> 8;
}

/* Noise, or extremes where sums reach furthest. */
static uint8_t *make_pixels(int64_t n_bytes, bool extreme)
{
    uint8_t *pixels = malloc((size_t)n_bytes);
    assert_non_null(pixels);
    for (int64_t i = 0; i < n_bytes; i++)
        pixels[i] = extreme ? (noise() & 1 ? 255 : 0) : (uint8_t)noise();
    return pixels;
}

static void compare_kernels(mm_weigh *fast, int64_t height, int64_t width,
                            int channels, const mm_window *w, bool extreme)
{
    int64_t n = w->height * w->width * channels;
    uint8_t *in = make_pixels(height * width * channels, extreme);
    uint8_t *expected = malloc((size_t)n), *out = malloc((size_t)n);
    mm_pixels pixels = {in, width * channels, height, width, channels};
    mm_resampler *plain = NULL, *chosen = NULL;
    assert_int_equal(mm_resampler_create_with(mm_weigh_plain, &plain), MM_OK);
    assert_int_equal(mm_resampler_create_with(fast, &chosen), MM_OK);
    assert_int_equal(mm_resample(plain, &pixels, w, expected), MM_OK);
    assert_int_equal(mm_resample(chosen, &pixels, w, out), MM_OK);
    assert_memory_equal(out, expected, (size_t)n);
    mm_resampler_destroy(&plain);
    mm_resampler_destroy(&chosen);
    free(in);
    free(expected);
    free(out);
}

static void both_kernels_give_the_same_bytes(void **state)
{
    (void)state;
    mm_weigh *fast = mm_weigh_avx2();
    if (!fast)
        skip();
    const int64_t sizes[][4] = {/* from height, width to height, width */
                                {1, 1, 7, 5},         {3, 2, 300, 9},
                                {28, 28, 32, 32},     {33, 65, 20, 31},
                                {375, 500, 224, 298}, {500, 40, 2, 40},
                                {64, 1000, 64, 3},    {2000, 3, 1, 90}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (int channels = 1; channels <= 4; channels++)
            for (int extreme = 0; extreme < 2; extreme++) {
                const int64_t *s = sizes[k];
                mm_window all = {s[2], s[3], 0, 0, s[2], s[3]};
                mm_window part = {
                    s[2],           s[3], s[2] / 3, s[3] / 4, s[2] - s[2] / 2,
                    s[3] - s[3] / 2};
                compare_kernels(fast, s[0], s[1], channels, &all, extreme);
                compare_kernels(fast, s[0], s[1], channels, &part, extreme);
            }
}

static void one_kernel_call_is_the_rounded_sum(mm_weigh *weigh)
{
    enum { ROWS = 12, BYTES = 2 * MM_LANES };
    uint8_t *rows = make_pixels((ROWS + 1) * BYTES, true), out[BYTES];
    mm_axis axis = {0};
    assert_int_equal(mm_axis_set(&axis, ROWS, 5, 0, 5), MM_OK);
    for (int64_t i = 0; i < axis.n; i++) {
        const mm_taps *taps = &axis.taps[i];
        weigh(&axis, i, rows + taps->first * BYTES, BYTES, BYTES, out);
        for (int64_t at = 0; at < BYTES; at++) {
            int64_t sum = (int64_t)1 << (MM_WEIGHT_BITS - 1);
            for (int64_t tap = 0; tap < taps->n; tap++)
                sum += (int64_t)axis.weights[i * axis.stride + tap] *
                       rows[(taps->first + tap) * BYTES + at];
            int64_t v = sum >> MM_WEIGHT_BITS;
            assert_int_equal(out[at], v < 0 ? 0 : v > 255 ? 255 : v);
        }
    }
    mm_axis_clear(&axis);
    free(rows);
}

static void each_kernel_gives_the_rounded_sum(void **state)
{
    (void)state;
    one_kernel_call_is_the_rounded_sum(mm_weigh_plain);
    if (mm_weigh_avx2())
        one_kernel_call_is_the_rounded_sum(mm_weigh_avx2());
}

static void weights_sum_to_one_and_pairs_to_the_weights(void **state)
{
    (void)state;
    mm_axis axis = {0};
    const int64_t sizes[][2] = {{1, 9}, {2, 300}, {500, 298}, {3000, 7}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int64_t n = sizes[k][1];
        assert_int_equal(mm_axis_set(&axis, sizes[k][0], n, 0, n), MM_OK);
        for (int64_t i = 0; i < n * axis.stride; i++) {
            const mm_tap_pair *pair = &axis.pairs[i / 2];
            assert_int_equal(pair->upper[i % 2] * (1 << 16) +
                                 pair->lower[i % 2],
                             axis.weights[i]);
            assert_int_equal(pair->upper[i % 2 + 2], pair->upper[i % 2]);
        }
        for (int64_t i = 0; i < n; i++) {
            int64_t sum = 0;
            for (int64_t tap = 0; tap < axis.stride; tap++)
                sum += axis.weights[i * axis.stride + tap];
            assert_true(llabs(sum - (1 << MM_WEIGHT_BITS)) <= axis.taps[i].n);
        }
    }
    mm_axis_clear(&axis);
}

static void a_block_transposed_back_is_the_rows(void **state)
{
    (void)state;
    enum { BYTES = 77, ROOM = 80 };
    uint8_t *in = make_pixels(MM_LANES * BYTES, false);
    uint8_t block[ROOM * MM_LANES] = {0}, back[MM_LANES][ROOM];
    const uint8_t *rows[MM_LANES];
    uint8_t *out[MM_LANES];
    for (int r = 0; r < MM_LANES; r++) {
        rows[r] = in + r * BYTES;
        out[r] = back[r];
    }
    mm_rows_to_block(rows, BYTES, block);
    for (int r = 0; r < MM_LANES; r++)
        for (int i = 0; i < BYTES; i++)
            assert_int_equal(block[i * MM_LANES + r], rows[r][i]);
    mm_block_to_rows(block, BYTES, out);
    for (int r = 0; r < MM_LANES; r++)
        assert_memory_equal(back[r], rows[r], BYTES);
    free(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kernels_give_the_same_bytes),
        cmocka_unit_test(each_kernel_gives_the_rounded_sum),
        cmocka_unit_test(weights_sum_to_one_and_pairs_to_the_weights),
        cmocka_unit_test(a_block_transposed_back_is_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
