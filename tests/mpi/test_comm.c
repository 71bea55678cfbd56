/* Collectives of hosts, watched, for 1 to 4 ranks. */
#include "comm/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

typedef struct scene {
    mm_comm *comm;
    int rank, n_ranks;
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    *state = s;
    const mm_comm_watch_plan watch = {.limit_s = 60};
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK ||
        mm_comm_watch(s->comm, &watch) != MM_OK)
        return 1;
    s->rank = mm_comm_rank(s->comm);
    s->n_ranks = mm_comm_n_ranks(s->comm);
    return 0;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    mm_comm_destroy(&s->comm);
    int failed = s->comm != NULL;
    free(s);
    return failed;
}

static void ranks_know_their_place(void **state)
{
    scene *s = *state;
    assert_in_range(s->rank, 0, s->n_ranks - 1);
    /* One host here. */
    assert_int_equal(mm_comm_n_node_ranks(s->comm), s->n_ranks);
    assert_in_range(mm_comm_node_rank(s->comm), 0, s->n_ranks - 1);
    assert_int_equal(mm_comm_node(s->comm), 0);
    assert_true(mm_comm_n_threads(s->comm) >= 1);
    assert_true(mm_comm_n_cores(s->comm) >= 1);
    assert_true(mm_comm_n_host_cores(s->comm) >= 1);
}

static void where_none_failed_all_agree_on_success(void **state)
{
    scene *s = *state;
    mm_fail(MM_E_IO, "of earlier");
    assert_int_equal(mm_comm_agree(s->comm, MM_OK), MM_OK);
}

static void every_rank_hears_of_the_one_that_failed(void **state)
{
    scene *s = *state;
    for (int failed = 0; failed < s->n_ranks; failed++) {
        char expected[64];
        snprintf(expected, sizeof expected, "image %d", failed);
        mm_fail(MM_E_IO, "not to be told");
        mm_status st = MM_OK;
        if (s->rank == failed)
            st = mm_fail(MM_E_VALUE, "%s", expected);
        assert_int_equal(mm_comm_agree(s->comm, st), MM_E_VALUE);
        if (s->n_ranks > 1)
            snprintf(expected, sizeof expected, "rank %d: image %d", failed,
                     failed);
        assert_string_equal(mm_fail_message(), expected);
    }
}

static void of_several_that_failed_the_lowest_rank_is_told(void **state)
{
    scene *s = *state;
    const mm_status statuses[] = {MM_E_ARG, MM_E_IO, MM_E_FORMAT, MM_E_MEMORY};
    for (int lowest = 1; lowest < s->n_ranks; lowest++) {
        mm_status st = MM_OK;
        if (s->rank >= lowest)
            st = mm_fail(statuses[s->rank % 4], "mine is %d", s->rank);
        assert_int_equal(mm_comm_agree(s->comm, st), statuses[lowest % 4]);
        char expected[64];
        snprintf(expected, sizeof expected, "rank %d: mine is %d", lowest,
                 lowest);
        assert_string_equal(mm_fail_message(), expected);
    }
}

static void where_all_failed_no_rank_is_named(void **state)
{
    scene *s = *state;
    mm_status st =
        mm_fail(s->rank ? MM_E_IO : MM_E_FORMAT, "mine is %d", s->rank);
    assert_int_equal(mm_comm_agree(s->comm, st), MM_E_FORMAT);
    assert_string_equal(mm_fail_message(), "mine is 0");
}

static void a_long_message_arrives(void **state)
{
    scene *s = *state;
    char text[4000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    mm_status st = MM_OK;
    if (s->rank == s->n_ranks - 1)
        st = mm_fail(MM_E_ARG, "%s", text);
    assert_int_equal(mm_comm_agree(s->comm, st), MM_E_ARG);
    assert_true(strlen(mm_fail_message()) > 1500);
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
}

static void any_rank_can_broadcast(void **state)
{
    scene *s = *state;
    for (int root = 0; root < s->n_ranks; root++) {
        int64_t data[1000];
        for (int i = 0; i < 1000; i++)
            data[i] = s->rank == root ? 1000 * root + i : -1;
        assert_int_equal(
            mm_comm_broadcast(s->comm, data, (int64_t)sizeof data, root),
            MM_OK);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(data[i], 1000 * root + i);
        assert_int_equal(mm_comm_broadcast(s->comm, data, 0, root), MM_OK);
    }
}

static void allgather_is_in_rank_order(void **state)
{
    scene *s = *state;
    int32_t mine[3] = {s->rank, 10 * s->rank, -s->rank};
    int32_t *all = calloc((size_t)s->n_ranks, sizeof mine);
    assert_int_equal(
        mm_comm_allgather(s->comm, mine, (int64_t)sizeof mine, all), MM_OK);
    for (int r = 0; r < s->n_ranks; r++) {
        assert_int_equal(all[3 * r], r);
        assert_int_equal(all[3 * r + 1], 10 * r);
        assert_int_equal(all[3 * r + 2], -r);
    }
    free(all);
}

/** How much a rank brings: uneven, and in each round another one nothing. */
static int64_t n_brought(int rank, int round)
{
    return rank == round ? 0 : 1000 * rank * rank + 7 * round + 1;
}

static void collect_brings_uneven_shares_together(void **state)
{
    scene *s = *state;
    for (int round = 0; round <= s->n_ranks; round++) {
        int64_t n = n_brought(s->rank, round), n_all = 0;
        for (int r = 0; r < s->n_ranks; r++)
            n_all += n_brought(r, round);
        uint8_t *mine = malloc((size_t)n + 1);
        uint8_t *all = malloc((size_t)n_all + 1);
        memset(mine, 'a' + s->rank, (size_t)n + 1);
        memset(all, '.', (size_t)n_all + 1);
        assert_int_equal(
            mm_comm_collect(s->comm, mine, n, s->rank ? NULL : all), MM_OK);
        const uint8_t *at = all;
        for (int r = 0; s->rank == 0 && r < s->n_ranks; r++)
            for (int64_t i = 0; i < n_brought(r, round); i++)
                assert_int_equal(*at++, 'a' + r);
        if (s->rank == 0)
            assert_int_equal(*at, '.');
        free(mine);
        free(all);
    }
}

static void sums_are_exact_for_small_integers(void **state)
{
    scene *s = *state;
    enum { N = 257 };
    double reals[N];
    int64_t integers[N];
    /* Beyond what a double holds. */
    const int64_t large = ((int64_t)1 << 53) + 1;
    for (int i = 0; i < N; i++) {
        reals[i] = (s->rank + 1) * i;
        integers[i] = (s->rank + 1) * (large + i);
    }
    assert_int_equal(mm_comm_sum_double(s->comm, reals, N), MM_OK);
    assert_int_equal(mm_comm_sum_int64(s->comm, integers, N), MM_OK);
    int64_t total = (int64_t)s->n_ranks * (s->n_ranks + 1) / 2;
    for (int i = 0; i < N; i++) {
        assert_true(reals[i] == (double)(total * i));
        assert_true(integers[i] == total * (large + i));
    }
    assert_int_equal(mm_comm_sum_double(s->comm, reals, 0), MM_OK);
    assert_int_equal(mm_comm_sum_int64(s->comm, integers, 0), MM_OK);
}

static void sums_are_the_same_bits_on_every_rank(void **state)
{
    scene *s = *state;
    enum { N = 100 };
    double values[N];
    for (int i = 0; i < N; i++)
        values[i] = 1.0 / (3 + 7 * i + 11 * s->rank);
    assert_int_equal(mm_comm_sum_double(s->comm, values, N), MM_OK);
    double *all = calloc((size_t)s->n_ranks, sizeof values);
    assert_int_equal(
        mm_comm_allgather(s->comm, values, (int64_t)sizeof values, all), MM_OK);
    for (int r = 0; r < s->n_ranks; r++)
        assert_memory_equal(all + (ptrdiff_t)r * N, values, sizeof values);
    free(all);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(ranks_know_their_place),
        cmocka_unit_test(where_none_failed_all_agree_on_success),
        cmocka_unit_test(every_rank_hears_of_the_one_that_failed),
        cmocka_unit_test(of_several_that_failed_the_lowest_rank_is_told),
        cmocka_unit_test(where_all_failed_no_rank_is_named),
        cmocka_unit_test(a_long_message_arrives),
        cmocka_unit_test(any_rank_can_broadcast),
        cmocka_unit_test(allgather_is_in_rank_order),
        cmocka_unit_test(collect_brings_uneven_shares_together),
        cmocka_unit_test(sums_are_exact_for_small_integers),
        cmocka_unit_test(sums_are_the_same_bits_on_every_rank),
    };
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
