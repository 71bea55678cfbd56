/* Every method on one block, against plain loops. */
#include "src/base/rng.h"
#include "src/merge/method.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { N = 1003, N_TASKS = 4, FIRST = 77 };

typedef struct fixture {
    mm_device *device;
    mm_stream *stream;
    float base[N], tuned[N_TASKS][N];
    float tau[N], out[N], expected[N];
    uint16_t winner[N], expected_winner[N];
} fixture;

static fixture f;

/** Small multiples of 1/64, so that equal magnitudes of both signs occur. */
static float sample(uint64_t i)
{
    mm_rng_key key = mm_rng_key_of(1, MM_RNG_INIT);
    return (float)((int)mm_rng_below(key, i, 15) - 7) / 64;
}

static int setup(void **state)
{
    (void)state;
    if (mm_device_open("cpu", 2, &f.device) != MM_OK ||
        mm_stream_create(f.device, &f.stream) != MM_OK)
        return -1;
    for (int i = 0; i < N; i++) {
        f.base[i] = sample((uint64_t)i) + 0.1f;
        for (int t = 0; t < N_TASKS; t++)
            f.tuned[t][i] = f.base[i] + sample((uint64_t)(N * (t + 1) + i)) / 3;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mm_stream_destroy(&f.stream);
    mm_device_close(&f.device);
    return 0;
}

static void run(const mm_merge_method *method, float coef, uint64_t seed)
{
    mm_merge_settings settings = {N_TASKS, coef, seed};
    mm_merge_block block = {.ops = mm_device_ops(f.device),
                            .stream = f.stream,
                            .first_elem = FIRST,
                            .n_elems = N,
                            .base = f.base,
                            .tau = f.tau,
                            .winner = f.winner};
    memset(f.tau, 0, sizeof f.tau);
    memset(f.winner, 0xff, sizeof f.winner);
    for (int t = 0; t < N_TASKS; t++)
        assert_int_equal(method->fold(&settings, &block, f.tuned[t], t), MM_OK);
    assert_int_equal(method->finish(&settings, &block, f.out), MM_OK);
    assert_int_equal(mm_stream_sync(f.stream), MM_OK);
}

static void magmax_keeps_the_largest_change_and_later_ties(void **state)
{
    (void)state;
    int n_ties = 0;
    for (int i = 0; i < N; i++) {
        int best = 0;
        for (int t = 1; t < N_TASKS; t++) {
            float d = fabsf(f.tuned[t][i] - f.base[i]);
            float most = fabsf(f.tuned[best][i] - f.base[i]);
            n_ties += d == most;
            if (d >= most)
                best = t;
        }
        float change = f.tuned[best][i] - f.base[i];
        float scaled = 0.3f * change;
        f.expected[i] = f.base[i] + scaled;
        f.expected_winner[i] = (uint16_t)best;
    }
    assert_true(n_ties > 50);
    run(&mm_merge_magmax, 0.3f, 0);
    assert_memory_equal(f.out, f.expected, sizeof f.out);
    assert_memory_equal(f.winner, f.expected_winner, sizeof f.winner);
}

static void sum_changes(int i, float *sum)
{
    *sum = 0;
    for (int t = 0; t < N_TASKS; t++)
        *sum += f.tuned[t][i] - f.base[i];
}

static void average_is_the_mean_change(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        float sum;
        sum_changes(i, &sum);
        float scaled = 0.9f * (sum / (float)N_TASKS);
        f.expected[i] = f.base[i] + scaled;
    }
    run(&mm_merge_average, 0.9f, 0);
    assert_memory_equal(f.out, f.expected, sizeof f.out);
}

static void task_arithmetic_is_the_sum_of_changes(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        float sum;
        sum_changes(i, &sum);
        float scaled = 0.3f * sum;
        f.expected[i] = f.base[i] + scaled;
    }
    run(&mm_merge_task_arithmetic, 0.3f, 0);
    assert_memory_equal(f.out, f.expected, sizeof f.out);
}

static void random_draws_from_seed_and_element(void **state)
{
    (void)state;
    for (uint64_t seed = 5; seed < 7; seed++) {
        mm_rng_key key = mm_rng_key_of(seed, MM_RNG_MERGE);
        for (int i = 0; i < N; i++) {
            uint32_t t = mm_rng_below(key, (uint64_t)(FIRST + i), N_TASKS);
            float scaled = 0.7f * (f.tuned[t][i] - f.base[i]);
            f.expected[i] = f.base[i] + scaled;
            f.expected_winner[i] = (uint16_t)t;
        }
        run(&mm_merge_random, 0.7f, seed);
        assert_memory_equal(f.out, f.expected, sizeof f.out);
        assert_memory_equal(f.winner, f.expected_winner, sizeof f.winner);
    }
}

static void every_listed_method_is_found(void **state)
{
    (void)state;
    char names[] = MM_MERGE_METHODS, *rest = names;
    int n = 0;
    for (char *name; (name = strsep(&rest, ",")); n++) {
        const mm_merge_method *method = mm_merge_method_find(name);
        assert_non_null(method);
        assert_string_equal(method->name, name);
    }
    assert_int_equal(n, 4);
    assert_null(mm_merge_method_find("magmx"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magmax_keeps_the_largest_change_and_later_ties),
        cmocka_unit_test(average_is_the_mean_change),
        cmocka_unit_test(task_arithmetic_is_the_sum_of_changes),
        cmocka_unit_test(random_draws_from_seed_and_element),
        cmocka_unit_test(every_listed_method_is_found),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
