/* Image transforms whose results follow from their definition;
 * tests/parity/test_transform.py compares them with Pillow. */
#include "src/image/transform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 8, GUARD = 64, BYTES = SIZE * SIZE * 3 };

/** An output with sentinels behind it. */
typedef struct output {
    uint8_t bytes[BYTES + GUARD];
} output;

static mm_transform *create(void)
{
    mm_transform *t = NULL;
    assert_int_equal(mm_transform_create(SIZE, &t), MM_OK);
    return t;
}

static void prepare(output *out)
{
    memset(out->bytes, 0xA5, sizeof out->bytes);
}

static void assert_guard(const output *out)
{
    for (int i = BYTES; i < BYTES + GUARD; i++)
        assert_int_equal(out->bytes[i], 0xA5);
}

static void an_image_of_the_right_size_is_copied(void **state)
{
    (void)state;
    mm_transform *t = create();
    uint8_t pixels[BYTES];
    output out;
    for (int i = 0; i < BYTES; i++)
        pixels[i] = (uint8_t)(i * 37);
    mm_image image = {pixels, SIZE, SIZE, 3, MM_IMAGE_RGB, NULL};
    prepare(&out);
    assert_int_equal(mm_transform_evaluation(t, &image, out.bytes), MM_OK);
    assert_memory_equal(out.bytes, pixels, BYTES);
    assert_guard(&out);
    mm_transform_destroy(&t);
    assert_null(t);
}

static void grey_becomes_three_equal_channels(void **state)
{
    (void)state;
    mm_transform *t = create();
    uint8_t pixels[SIZE * SIZE];
    output out;
    for (int i = 0; i < SIZE * SIZE; i++)
        pixels[i] = (uint8_t)(i * 3);
    mm_image image = {pixels, SIZE, SIZE, 1, MM_IMAGE_GREY, NULL};
    prepare(&out);
    assert_int_equal(mm_transform_evaluation(t, &image, out.bytes), MM_OK);
    for (int i = 0; i < BYTES; i++)
        assert_int_equal(out.bytes[i], pixels[i / 3]);
    assert_guard(&out);
    mm_transform_destroy(&t);
}

static void a_flat_image_of_any_size_stays_flat(void **state)
{
    (void)state;
    mm_transform *t = create();
    const int64_t sides[][2] = {{1, 1},  {1, 50},  {50, 1},  {7, 9},
                                {64, 3}, {33, 65}, {200, 90}};
    output out;
    for (size_t k = 0; k < sizeof sides / sizeof *sides; k++) {
        int64_t n = sides[k][0] * sides[k][1] * 3;
        uint8_t *pixels = malloc((size_t)n);
        for (int64_t i = 0; i < n; i++)
            pixels[i] = (uint8_t)(10 + 100 * (i % 3)); /* 10, 110, 210 */
        mm_image image = {pixels, sides[k][0],  sides[k][1],
                          3,      MM_IMAGE_RGB, NULL};
        for (int what = 0; what < 3; what++) {
            prepare(&out);
            mm_status st =
                what == 0 ? mm_transform_evaluation(t, &image, out.bytes)
                : what == 1
                    ? mm_transform_training(t, &image, 5, 1, 2, out.bytes)
                    : mm_transform_crop(t, &image, 0, 0, sides[k][1], 1,
                                        out.bytes);
            assert_int_equal(st, MM_OK);
            for (int i = 0; i < BYTES; i++)
                assert_int_equal(out.bytes[i], 10 + 100 * (i % 3));
            assert_guard(&out);
        }
        free(pixels);
    }
    mm_transform_destroy(&t);
}

static void
scratch_of_a_larger_image_does_not_show_in_a_smaller_one(void **state)
{
    (void)state;
    mm_transform *used = create(), *fresh = create();
    static uint8_t large[300 * 200 * 3], small[20 * 30];
    output a, b;
    memset(large, 255, sizeof large);
    for (size_t i = 0; i < sizeof small; i++)
        small[i] = (uint8_t)(i * 7);
    mm_image first = {large, 300, 200, 3, MM_IMAGE_RGB, NULL},
             second = {small, 20, 30, 1, MM_IMAGE_GREY, NULL};
    prepare(&a);
    prepare(&b);
    assert_int_equal(mm_transform_evaluation(used, &first, a.bytes), MM_OK);
    assert_int_equal(mm_transform_evaluation(used, &second, a.bytes), MM_OK);
    assert_int_equal(mm_transform_evaluation(fresh, &second, b.bytes), MM_OK);
    assert_memory_equal(a.bytes, b.bytes, BYTES);
    mm_transform_destroy(&used);
    mm_transform_destroy(&fresh);
}

static void a_crop_reads_only_its_box(void **state)
{
    (void)state;
    mm_transform *t = create();
    uint8_t pixels[40 * 40];
    output a, b;
    for (int i = 0; i < 40 * 40; i++)
        pixels[i] = (uint8_t)(i * 11);
    mm_image image = {pixels, 40, 40, 1, MM_IMAGE_GREY, NULL};
    assert_int_equal(mm_transform_crop(t, &image, 5, 7, 20, 25, a.bytes),
                     MM_OK);
    for (int y = 0; y < 40; y++)
        for (int x = 0; x < 40; x++)
            if (y < 7 || y >= 32 || x < 5 || x >= 25)
                pixels[y * 40 + x] ^= 0xFF;
    assert_int_equal(mm_transform_crop(t, &image, 5, 7, 20, 25, b.bytes),
                     MM_OK);
    assert_memory_equal(a.bytes, b.bytes, BYTES);
    mm_transform_destroy(&t);
}

static void an_image_without_pixels_fails(void **state)
{
    (void)state;
    mm_transform *t = create();
    output out;
    uint8_t pixel = 0;
    mm_image flat = {&pixel, 0, 5, 3, MM_IMAGE_RGB, NULL},
             thin = {&pixel, 5, 0, 1, MM_IMAGE_GREY, NULL};
    assert_int_equal(mm_transform_evaluation(t, &flat, out.bytes), MM_E_VALUE);
    assert_int_equal(mm_transform_training(t, &thin, 5, 0, 0, out.bytes),
                     MM_E_VALUE);
    mm_transform_destroy(&t);
}

static void an_image_too_thin_to_be_resized_fails(void **state)
{
    (void)state;
    mm_transform *t = create();
    output out;
    enum { LENGTH = 1 << 26 }; /* times SIZE is more than 2^31 / SIZE */
    uint8_t *pixels = calloc(LENGTH, 1);
    assert_non_null(pixels);
    mm_image tall = {pixels, LENGTH, 1, 1, MM_IMAGE_GREY, NULL},
             wide = {pixels, 1, LENGTH, 1, MM_IMAGE_BILEVEL, NULL};
    assert_int_equal(mm_transform_evaluation(t, &tall, out.bytes), MM_E_VALUE);
    assert_int_equal(mm_transform_evaluation(t, &wide, out.bytes), MM_E_VALUE);
    assert_int_equal(mm_transform_training(t, &wide, 5, 0, 0, out.bytes),
                     MM_OK);
    free(pixels);
    mm_transform_destroy(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_of_the_right_size_is_copied),
        cmocka_unit_test(grey_becomes_three_equal_channels),
        cmocka_unit_test(a_flat_image_of_any_size_stays_flat),
        cmocka_unit_test(
            scratch_of_a_larger_image_does_not_show_in_a_smaller_one),
        cmocka_unit_test(a_crop_reads_only_its_box),
        cmocka_unit_test(an_image_without_pixels_fails),
        cmocka_unit_test(an_image_too_thin_to_be_resized_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
