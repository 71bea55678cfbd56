/* Number types of weights files against IEEE 754 by its definition. */
#include "io/weights/number_types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 65536 };

/* IEEE 754 by its definition. */
static double value_of_half(unsigned half)
{
    int exponent = (half >> 10) & 31, mantissa = half & 1023;
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, -24);
    return sign * ldexp(1024 + mantissa, exponent - 25);
}

static void every_half_becomes_its_value(void **state)
{
    (void)state;
    uint16_t *in = malloc(N * sizeof *in);
    float *out = malloc(N * sizeof *out);
    assert_true(in && out);
    for (int i = 0; i < N; i++)
        in[i] = (uint16_t)i;
    mm_elem_to_f32(MM_ELEM_F16, in, out, N);
    for (int i = 0; i < N; i++) {
        double expected = value_of_half((unsigned)i);
        if (isnan(expected))
            assert_true(isnan(out[i]));
        else
            assert_true(out[i] == expected && !signbit(out[i]) == !(i >> 15));
    }
    free(out);
    free(in);
}

static void bfloat16_is_the_upper_half_of_a_float(void **state)
{
    (void)state;
    uint16_t *in = malloc(N * sizeof *in);
    float *out = malloc(N * sizeof *out);
    assert_true(in && out);
    for (int i = 0; i < N; i++)
        in[i] = (uint16_t)i;
    mm_elem_to_f32(MM_ELEM_BF16, in, out, N);
    for (int i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], 4);
        assert_int_equal(bits, (uint32_t)i << 16);
    }
    free(out);
    free(in);
}

static void doubles_are_rounded_to_the_nearest(void **state)
{
    (void)state;
    const double in[] = {1, 1 + 0x1p-25, 1 + 0x1.8p-24, -0.0, 1e300, 0x1p-149};
    float out[6];
    mm_elem_to_f32(MM_ELEM_F64, in, out, 6);
    assert_true(out[0] == 1 && out[1] == 1 && out[2] == 1 + 0x1p-23f);
    assert_true(signbit(out[3]) && isinf(out[4]) && out[5] == 0x1p-149f);
}

/* OCP's 8-bit numbers by their definition; special values aside. */
static double value_of_f8(int byte, int mantissa_bits, int bias)
{
    int mantissa = byte & ((1 << mantissa_bits) - 1);
    int exponent = (byte & 0x7f) >> mantissa_bits;
    double sign = byte & 0x80 ? -1 : 1;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp((1 << mantissa_bits) + mantissa,
                        exponent - bias - mantissa_bits);
}

static void every_8_bit_float_becomes_its_value(void **state)
{
    (void)state;
    uint8_t in[512];
    float e4m3[512], e5m2[512], e8m0[512];
    for (int i = 0; i < 512; i++)
        in[i] = (uint8_t)i;
    mm_elem_to_f32(MM_ELEM_F8_E4M3, in, e4m3, 512);
    mm_elem_to_f32(MM_ELEM_F8_E5M2, in, e5m2, 512);
    mm_elem_to_f32(MM_ELEM_F8_E8M0, in, e8m0, 512);
    for (int i = 0; i < 512; i++) {
        int byte = in[i];
        if ((byte & 0x7f) == 0x7f)
            assert_true(isnan(e4m3[i]));
        else
            assert_true(e4m3[i] == value_of_f8(byte, 3, 7));
        if ((byte & 0x7f) > 0x7c)
            assert_true(isnan(e5m2[i]));
        else if ((byte & 0x7f) == 0x7c)
            assert_true(isinf(e5m2[i]));
        else
            assert_true(e5m2[i] == value_of_f8(byte, 2, 15));
        assert_int_equal(!signbit(e5m2[i]), !(byte >> 7));
        if (byte == 0xff)
            assert_true(isnan(e8m0[i]));
        else
            assert_true(e8m0[i] == ldexp(1, byte - 127));
    }
}

#define CHECK_INTEGERS(elem, type, ...)                      \
    do {                                                     \
        const type in[] = {__VA_ARGS__};                     \
        enum { COUNT = sizeof in / sizeof *in };             \
        float out[COUNT];                                    \
        mm_elem_to_f32(elem, in, out, COUNT);                \
        assert_int_equal(mm_elem_n_bytes(elem), sizeof *in); \
        for (int i = 0; i < COUNT; i++)                      \
            assert_true(out[i] == (float)in[i]);             \
    } while (0)

static void integers_are_rounded_to_the_nearest(void **state)
{
    (void)state;
    CHECK_INTEGERS(MM_ELEM_I8, int8_t, 0, 1, -1, INT8_MIN, INT8_MAX);
    CHECK_INTEGERS(MM_ELEM_U8, uint8_t, 0, 1, UINT8_MAX);
    CHECK_INTEGERS(MM_ELEM_I16, int16_t, 0, -1, INT16_MIN, INT16_MAX);
    CHECK_INTEGERS(MM_ELEM_U16, uint16_t, 0, 1, UINT16_MAX);
    CHECK_INTEGERS(MM_ELEM_I32, int32_t, 0, -1, INT32_MIN, INT32_MAX);
    CHECK_INTEGERS(MM_ELEM_U32, uint32_t, 0, 1, UINT32_MAX);
    CHECK_INTEGERS(MM_ELEM_I64, int64_t, 0, -1, INT64_MIN, INT64_MAX);
    CHECK_INTEGERS(MM_ELEM_U64, uint64_t, 0, 1, UINT64_MAX);
    const int32_t ties[] = {(1 << 24) + 1, (1 << 24) + 3};
    const uint8_t truths[] = {0, 1, 2, 255};
    float out[4];
    mm_elem_to_f32(MM_ELEM_I32, ties, out, 2);
    assert_true(out[0] == 0x1p24f && out[1] == 0x1p24f + 4);
    mm_elem_to_f32(MM_ELEM_BOOL, truths, out, 4);
    assert_true(out[0] == 0 && out[1] == 1 && out[2] == 1 && out[3] == 1);
}

static uint16_t narrowed(mm_elem_type type, float value)
{
    uint16_t half;
    mm_elem_from_f32(type, &value, &half, 1);
    return half;
}

/* Every number between two adjacent ones goes to the nearer one, and the one in
 * the middle to the even one; the adjacent ones are those that reading gives.
 */
static void check_rounding(mm_elem_type type, unsigned n_finite)
{
    for (unsigned i = 0; i < n_finite; i++)
        for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000) {
            uint16_t pair[2] = {(uint16_t)(i | sign),
                                (uint16_t)((i + 1) | sign)};
            float value[2];
            mm_elem_to_f32(type, pair, value, 2);
            assert_int_equal(narrowed(type, value[0]), pair[0]);
            if (i + 1 == n_finite)
                break;
            float middle = value[0] + (value[1] - value[0]) / 2;
            uint16_t even = pair[0] & 1 ? pair[1] : pair[0];
            assert_int_equal(narrowed(type, middle), even);
            assert_int_equal(narrowed(type, nextafterf(middle, value[0])),
                             pair[0]);
            assert_int_equal(narrowed(type, nextafterf(middle, value[1])),
                             pair[1]);
        }
}

static void narrow_floats_are_rounded_to_the_nearest_even(void **state)
{
    (void)state;
    check_rounding(MM_ELEM_F16, 0x7c00);
    check_rounding(MM_ELEM_BF16, 0x7f80);
}

static void what_becomes_infinite_is_found_at_any_place(void **state)
{
    (void)state;
    enum { M = 700 };
    static const struct {
        mm_elem_type type;
        float largest, too_large;
    } cases[] = {
        {MM_ELEM_F32, 0x1.fffffep127f, INFINITY},
        {MM_ELEM_F16, 0x1.ffdffep15f, 0x1.ffep15f},
        {MM_ELEM_BF16, 0x1.fefffep127f, 0x1.ffp127f},
    };
    for (int c = 0; c < 3; c++) {
        float in[M], out[M];
        for (int i = 0; i < M; i++)
            in[i] = i % 2 ? cases[c].largest : -cases[c].largest;
        assert_int_equal(mm_elem_from_f32(cases[c].type, in, out, M), -1);
        for (int i = 0; i < M; i++) {
            float kept = in[i];
            in[i] = i % 3 == 0   ? NAN
                    : i % 3 == 1 ? cases[c].too_large
                                 : -cases[c].too_large;
            assert_int_equal(mm_elem_from_f32(cases[c].type, in, out, M), i);
            in[i] = kept;
        }
    }
}

static void first_nonfinite_is_found_at_any_place(void **state)
{
    (void)state;
    enum { M = 1000 };
    float values[M] = {0};
    values[7] = 3.4e38f;
    values[9] = -0.0f;
    assert_int_equal(mm_first_nonfinite(values, M), -1);
    assert_int_equal(mm_first_nonfinite(values, 0), -1);
    for (int i = 0; i < M; i++) {
        float kept = values[i];
        values[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
        assert_int_equal(mm_first_nonfinite(values, M), i);
        assert_int_equal(mm_first_nonfinite(values, i), -1);
        values[i] = kept;
    }
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(every_half_becomes_its_value),
        cmocka_unit_test(bfloat16_is_the_upper_half_of_a_float),
        cmocka_unit_test(doubles_are_rounded_to_the_nearest),
        cmocka_unit_test(every_8_bit_float_becomes_its_value),
        cmocka_unit_test(integers_are_rounded_to_the_nearest),
        cmocka_unit_test(narrow_floats_are_rounded_to_the_nearest_even),
        cmocka_unit_test(what_becomes_infinite_is_found_at_any_place),
        cmocka_unit_test(first_nonfinite_is_found_at_any_place),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
