#include "io/convert.h"

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
    mm_convert_to_f32(MM_ELEM_F16, in, out, N);
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
    mm_convert_to_f32(MM_ELEM_BF16, in, out, N);
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
    mm_convert_to_f32(MM_ELEM_F64, in, out, 6);
    assert_true(out[0] == 1 && out[1] == 1 && out[2] == 1 + 0x1p-23f);
    assert_true(signbit(out[3]) && isinf(out[4]) && out[5] == 0x1p-149f);
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
        cmocka_unit_test(first_nonfinite_is_found_at_any_place),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
