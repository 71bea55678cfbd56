/* Merging by the larger change, exactly: signs, ties, zeros and subnormal
 * numbers. */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void fold(op_env *env, float *best, uint16_t *winner, const float *tuned,
                 const float *base, uint16_t task, int64_t n)
{
    float *d_best = op_put_floats(env, best, n);
    uint16_t *d_winner = op_put(env, winner, n * 2);
    op_ok(env->ops->max_magnitude(env->stream, d_best, d_winner,
                                  op_put_floats(env, tuned, n),
                                  op_put_floats(env, base, n), task, n));
    op_get_floats(env, d_best, best, n);
    op_get(env, d_winner, winner, n * 2);
}

/* Exact expectations, so the whole of both arrays must be equal. */
static void expect(int64_t n, const float *base, const float *tuned,
                   const float *best, const float *want,
                   const uint16_t *want_winner)
{
    float got[16];
    uint16_t winner[16];
    memcpy(got, best, (size_t)n * sizeof *got);
    memset(winner, 0, sizeof winner);
    op_env env;
    op_open(&env, 1);
    fold(&env, got, winner, tuned, base, 3, n);
    op_close(&env);
    assert_memory_equal(got, want, (size_t)n * sizeof *got);
    assert_memory_equal(winner, want_winner, (size_t)n * sizeof *winner);
}

static void max_magnitude_keeps_the_larger_change_and_its_sign(void **state)
{
    (void)state;
    const float base[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    const float tuned[4] = {3.0f, -3.0f, 1.5f, 0.5f};
    const float best[4] = {1.0f, 1.0f, 1.0f, -1.0f};
    const float want[4] = {2.0f, -4.0f, 1.0f, -1.0f};
    const uint16_t winner[4] = {3, 3, 0, 0};
    expect(4, base, tuned, best, want, winner);
}

static void max_magnitude_tie_keeps_later_task(void **state)
{
    (void)state;
    const float base[3] = {0.0f, 0.0f, 0.0f};
    const float tuned[3] = {2.0f, -2.0f, 0.0f};
    const float best[3] = {-2.0f, -2.0f, 0.0f};
    const float want[3] = {2.0f, -2.0f, 0.0f};
    const uint16_t winner[3] = {3, 3, 3};
    expect(3, base, tuned, best, want, winner);
}

static void max_magnitude_takes_negative_zero_as_it_is(void **state)
{
    (void)state;
    const float base[2] = {0.0f, 0.0f}, tuned[2] = {-0.0f, 0.0f};
    const float best[2] = {0.0f, -0.0f};
    const float want[2] = {-0.0f - 0.0f, 0.0f};
    const uint16_t winner[2] = {3, 3};
    expect(2, base, tuned, best, want, winner);
}

static void max_magnitude_does_not_flush_subnormal_changes(void **state)
{
    (void)state;
    const float base[3] = {0.0f, 0.0f, 0x1p-126f};
    const float tuned[3] = {1e-45f, -2e-45f, 0x1.000002p-126f};
    const float best[3] = {0.0f, 1e-45f, 0.0f};
    const float want[3] = {1e-45f, -2e-45f, 0x1p-149f};
    const uint16_t winner[3] = {3, 3, 3};
    expect(3, base, tuned, best, want, winner);
}

static void max_magnitude_of_many_tasks_matches_a_plain_loop(void **state)
{
    (void)state;
    enum { N = 100003, TASKS = 4 };
    float *base = op_random(9, N), *best = op_host(N * 4);
    float *want = op_host(N * 4);
    uint16_t *winner = op_host(N * 2), *want_winner = op_host(N * 2);
    for (uint16_t task = 0; task < TASKS; task++) {
        float *tuned = op_random(task, N);
        for (int i = 0; i < N; i++) {
            tuned[i] = roundf(tuned[i] * 8.0f) / 8.0f; /* many ties */
            float d = tuned[i] - base[i];
            if (fabsf(d) >= fabsf(want[i])) {
                want[i] = d;
                want_winner[i] = task;
            }
        }
        op_env env;
        op_open(&env, 1 + task % 3);
        fold(&env, best, winner, tuned, base, task, N);
        op_close(&env);
        free(tuned);
    }
    assert_memory_equal(best, want, N * 4);
    assert_memory_equal(winner, want_winner, N * 2);
    free(base);
    free(best);
    free(want);
    free(winner);
    free(want_winner);
}

static void max_magnitude_of_nothing_does_nothing(void **state)
{
    (void)state;
    expect(0, NULL, NULL, (const float[1]){0}, (const float[1]){0},
           (const uint16_t[1]){0});
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(max_magnitude_keeps_the_larger_change_and_its_sign),
    cmocka_unit_test(max_magnitude_tie_keeps_later_task),
    cmocka_unit_test(max_magnitude_takes_negative_zero_as_it_is),
    cmocka_unit_test(max_magnitude_does_not_flush_subnormal_changes),
    cmocka_unit_test(max_magnitude_of_many_tasks_matches_a_plain_loop),
    cmocka_unit_test(max_magnitude_of_nothing_does_nothing),
};
OP_MAIN(tests)
