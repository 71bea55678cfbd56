/* Random numbers that are a function of seed, stream and counter. */
#include "src/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

static void philox_gives_the_published_answers(void **state)
{
    (void)state;
    /* Known answers of the Random123 distribution, philox 4x32 10. */
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0},
         {0, 0},
         {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {UINT32_MAX, UINT32_MAX},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        mm_rng_key key = {{known[i].key[0], known[i].key[1]}};
        uint32_t out[4];
        mm_rng_philox(key, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void both_words_of_the_counter_reach_the_cipher(void **state)
{
    (void)state;
    mm_rng_key key = {{0xa4093822, 0x299f31d0}};
    assert_true(mm_rng_bits(key, 0x85a308d3243f6a88, 0x0370734413198a2e) ==
                0x94fdccebd16cfe09);
}

static void a_draw_is_a_function_of_its_arguments_alone(void **state)
{
    (void)state;
    mm_rng_key key = mm_rng_key_of(5, MM_RNG_AUGMENT);
    uint64_t first = mm_rng_bits(key, 17, 3);
    for (uint64_t i = 0; i < 100; i++)
        (void)mm_rng_bits(key, i, 0);
    assert_true(mm_rng_bits(mm_rng_key_of(5, MM_RNG_AUGMENT), 17, 3) == first);
}

static void below_stays_below(void **state)
{
    (void)state;
    mm_rng_key key = mm_rng_key_of(1, MM_RNG_ORDER);
    const uint32_t bounds[] = {1, 2, 3, 10, 1000, 1u << 31, UINT32_MAX};
    for (int b = 0; b < 7; b++)
        for (uint64_t i = 0; i < 2000; i++)
            assert_true(mm_rng_below(key, i, bounds[b]) < bounds[b]);
}

static void below_is_uniform(void **state)
{
    (void)state;
    enum { CELLS = 13, DRAWS = 130000 };
    mm_rng_key key = mm_rng_key_of(2, MM_RNG_ORDER);
    int counts[CELLS] = {0};
    for (uint64_t i = 0; i < DRAWS; i++)
        counts[mm_rng_below(key, i, CELLS)]++;
    double expected = (double)DRAWS / CELLS, chi_square = 0;
    for (int i = 0; i < CELLS; i++)
        chi_square +=
            (counts[i] - expected) * (counts[i] - expected) / expected;
    assert_true(chi_square < 32.9); /* 12 degrees of freedom, p = 0.001 */
}

static void uniform_fills_zero_to_one(void **state)
{
    (void)state;
    enum { DRAWS = 100000 };
    mm_rng_key key = mm_rng_key_of(3, MM_RNG_AUGMENT);
    double sum = 0, least = 1, most = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = mm_rng_uniform(key, i, 1);
        assert_true(u >= 0 && u < 1);
        sum += u;
        least = fmin(least, u);
        most = fmax(most, u);
    }
    assert_true(fabs(sum / DRAWS - 0.5) < 4 * sqrt(1.0 / 12 / DRAWS));
    assert_true(least < 1e-3 && most > 1 - 1e-3);
}

static void normal_has_a_normals_moments(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    mm_rng_key key = mm_rng_key_of(4, MM_RNG_INIT);
    double moments[5] = {0};
    int n_beyond_2 = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double x = mm_rng_normal(key, i, 0);
        assert_true(isfinite(x));
        for (int m = 1; m <= 4; m++)
            moments[m] += pow(x, m) / DRAWS;
        n_beyond_2 += fabs(x) > 2;
    }
    /* Four standard errors: the variance of x^m is known. */
    const double expected[5] = {0, 0, 1, 0, 3};
    const double variance[5] = {0, 1, 2, 15, 96};
    for (int m = 1; m <= 4; m++)
        assert_true(fabs(moments[m] - expected[m]) <
                    4 * sqrt(variance[m] / DRAWS));
    assert_true(fabs((double)n_beyond_2 / DRAWS - 0.0455) < 0.002);
}

static void streams_and_seeds_differ(void **state)
{
    (void)state;
    enum { STREAMS = 6, SEEDS = 5, KEYS = STREAMS * SEEDS };
    const uint64_t seeds[SEEDS] = {0, 1, 2, 1ull << 32, UINT64_MAX};
    mm_rng_key keys[KEYS];
    for (int i = 0; i < KEYS; i++)
        keys[i] = mm_rng_key_of(seeds[i / STREAMS],
                                (mm_rng_stream)(MM_RNG_ORDER + i % STREAMS));
    for (int i = 0; i < KEYS; i++)
        for (int j = 0; j < i; j++) {
            int n_same = 0;
            for (uint64_t c = 0; c < 16; c++)
                n_same +=
                    mm_rng_bits(keys[i], c, 0) == mm_rng_bits(keys[j], c, 0);
            assert_int_equal(n_same, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(both_words_of_the_counter_reach_the_cipher),
        cmocka_unit_test(a_draw_is_a_function_of_its_arguments_alone),
        cmocka_unit_test(below_stays_below),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(uniform_fills_zero_to_one),
        cmocka_unit_test(normal_has_a_normals_moments),
        cmocka_unit_test(streams_and_seeds_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
