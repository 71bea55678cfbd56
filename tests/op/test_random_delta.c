/* Merging by a random draw of tasks: every element's task, whatever the slices
 * and threads. */

#include "tests/op/op_test.h"

#include "src/base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { N = 70001, TASKS = 3, SEED = 5 };

typedef struct mix {
    float *base, *tuned[TASKS], *tau;
    uint16_t *winner;
} mix;

static mix make_mix(void)
{
    mix m = {.base = op_random(9, N), .tau = op_host(N * 4)};
    m.winner = op_host(N * 2);
    for (int task = 0; task < TASKS; task++)
        m.tuned[task] = op_random((uint64_t)task, N);
    return m;
}

static void free_mix(mix *m)
{
    free(m->base);
    free(m->tau);
    free(m->winner);
    for (int task = 0; task < TASKS; task++)
        free(m->tuned[task]);
}

/* Elements [lo, hi) as a rank that owns them would compute them. */
static void draw(const mix *m, float *tau, uint16_t *winner, int64_t lo,
                 int64_t hi, int n_threads)
{
    int64_t n = hi - lo;
    op_env env;
    op_open(&env, n_threads);
    float *d_tau = op_put_floats(&env, tau + lo, n);
    uint16_t *d_winner = op_put(&env, winner + lo, n * 2);
    float *d_base = op_put_floats(&env, m->base + lo, n);
    for (uint16_t task = 0; task < TASKS; task++)
        op_ok(env.ops->random_delta(env.stream, d_tau, d_winner,
                                    op_put_floats(&env, m->tuned[task] + lo, n),
                                    d_base, task, TASKS, SEED, lo, n));
    op_get_floats(&env, d_tau, tau + lo, n);
    op_get(&env, d_winner, winner + lo, n * 2);
    op_close(&env);
}

static void every_element_comes_from_the_task_it_drew(void **state)
{
    (void)state;
    mix m = make_mix();
    draw(&m, m.tau, m.winner, 0, N, 2);
    mm_rng_key key = mm_rng_key_of(SEED, MM_RNG_MERGE);
    int64_t n_won[TASKS] = {0};
    for (int64_t i = 0; i < N; i++) {
        uint32_t task = mm_rng_below(key, (uint64_t)i, TASKS);
        assert_int_equal(m.winner[i], task);
        assert_true(m.tau[i] == m.tuned[task][i] - m.base[i]);
        n_won[task]++;
    }
    for (int task = 0; task < TASKS; task++)
        assert_in_range(n_won[task], N / TASKS - 700, N / TASKS + 700);
    free_mix(&m);
}

static void the_draw_does_not_depend_on_slices_or_threads(void **state)
{
    (void)state;
    static const int64_t cuts[] = {0, 1, 9, 40007, N};
    mix m = make_mix();
    float *tau = op_host(N * 4);
    uint16_t *winner = op_host(N * 2);
    draw(&m, m.tau, m.winner, 0, N, 1);
    for (int i = 0; i < 4; i++)
        draw(&m, tau, winner, cuts[i], cuts[i + 1], 1 + i % 3);
    assert_memory_equal(m.tau, tau, N * 4);
    assert_memory_equal(m.winner, winner, N * 2);
    free(tau);
    free(winner);
    free_mix(&m);
}

static void random_delta_refuses_a_task_beyond_the_last(void **state)
{
    (void)state;
    float x = 0.0f;
    uint16_t winner = 0;
    op_env env;
    op_open(&env, 1);
    assert_int_equal(
        env.ops->random_delta(env.stream, &x, &winner, &x, &x, 3, 3, 0, 0, 1),
        MM_E_ARG);
    op_close(&env);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_element_comes_from_the_task_it_drew),
    cmocka_unit_test(the_draw_does_not_depend_on_slices_or_threads),
    cmocka_unit_test(random_delta_refuses_a_task_beyond_the_last),
};
OP_MAIN(tests)
