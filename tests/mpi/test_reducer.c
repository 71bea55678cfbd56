/* Gradients summed over 1 to 4 ranks, range by range. */
#include "comm/reducer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 4000 };

typedef struct scene {
    mm_comm *comm;
    int rank, n_ranks;
    float grad[N];
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    *state = s;
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK)
        return 1;
    s->rank = mm_comm_rank(s->comm);
    s->n_ranks = mm_comm_n_ranks(s->comm);
    return 0;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    mm_comm_destroy(&s->comm);
    free(s);
    return 0;
}

static mm_reducer *create(const scene *s, int64_t bucket_elems)
{
    mm_reducer *reducer = NULL;
    assert_int_equal(mm_reducer_create(s->comm, bucket_elems, &reducer), MM_OK);
    return reducer;
}

/** This rank's part of element i; small enough that sums are exact. */
static float part(int rank, int i, int round)
{
    return (float)((rank + 1) * (i % 17 - 5 + round));
}

static void fill(scene *s, int round)
{
    for (int i = 0; i < N; i++)
        s->grad[i] = part(s->rank, i, round);
}

static void assert_summed(const scene *s, int lo, int hi, int round)
{
    for (int i = lo; i < hi; i++) {
        float sum = 0;
        for (int r = 0; r < s->n_ranks; r++)
            sum += part(r, i, round);
        assert_true(s->grad[i] == sum);
    }
}

static void assert_untouched(const scene *s, int lo, int hi, int round)
{
    for (int i = lo; i < hi; i++)
        assert_true(s->grad[i] == part(s->rank, i, round));
}

/** As a backward pass does: uneven ranges, the last first, some of them empty,
 * with polls in between. */
static void give_last_to_first(mm_reducer *reducer, float *grad)
{
    static const int cuts[] = {N, N - 1, 3500, 3500, 2077, 2000, 1300, 9, 0, 0};
    for (int i = 1; i < (int)(sizeof cuts / sizeof *cuts); i++) {
        mm_reducer_poll(reducer);
        assert_int_equal(mm_reducer_ready(reducer, grad, cuts[i], cuts[i - 1]),
                         MM_OK);
        for (int poll = 0; poll < 3; poll++)
            mm_reducer_poll(reducer);
    }
}

static void ranges_from_last_to_first_are_summed(void **state)
{
    scene *s = *state;
    /* From one message an element, more than are kept waiting at a time, to
     * one message for all. */
    const int64_t buckets[] = {1, 3, 64, 700, N, 10 * N};
    for (int b = 0; b < 6; b++) {
        mm_reducer *reducer = create(s, buckets[b]);
        fill(s, 0);
        give_last_to_first(reducer, s->grad);
        assert_int_equal(mm_reducer_finish(reducer), MM_OK);
        assert_summed(s, 0, N, 0);
        mm_reducer_destroy(&reducer);
        assert_null(reducer);
    }
}

static void one_reducer_serves_many_rounds(void **state)
{
    scene *s = *state;
    mm_reducer *reducer = create(s, 500);
    double waited_s = mm_reducer_wait_s(reducer);
    assert_true(waited_s == 0);
    for (int round = 0; round < 20; round++) {
        fill(s, round);
        give_last_to_first(reducer, s->grad);
        assert_int_equal(mm_reducer_finish(reducer), MM_OK);
        assert_summed(s, 0, N, round);
        assert_true(mm_reducer_wait_s(reducer) >= waited_s);
        waited_s = mm_reducer_wait_s(reducer);
    }
    mm_reducer_destroy(&reducer);
}

static void ranges_from_first_to_last_are_summed(void **state)
{
    scene *s = *state;
    mm_reducer *reducer = create(s, 1000);
    fill(s, 3);
    for (int lo = 0; lo < N; lo += 400)
        assert_int_equal(mm_reducer_ready(reducer, s->grad, lo, lo + 400),
                         MM_OK);
    assert_int_equal(mm_reducer_finish(reducer), MM_OK);
    assert_summed(s, 0, N, 3);
    mm_reducer_destroy(&reducer);
}

static void what_lies_between_ranges_is_left_alone(void **state)
{
    scene *s = *state;
    const int64_t buckets[] = {10, 10 * N};
    for (int b = 0; b < 2; b++) {
        mm_reducer *reducer = create(s, buckets[b]);
        fill(s, 1);
        assert_int_equal(mm_reducer_ready(reducer, s->grad, 3000, 3100), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->grad, 100, 200), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->grad, 50, 100), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->grad, 200, 230), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->grad, 1000, 1001), MM_OK);
        assert_int_equal(mm_reducer_finish(reducer), MM_OK);
        assert_untouched(s, 0, 50, 1);
        assert_summed(s, 50, 230, 1);
        assert_untouched(s, 230, 1000, 1);
        assert_summed(s, 1000, 1001, 1);
        assert_untouched(s, 1001, 3000, 1);
        assert_summed(s, 3000, 3100, 1);
        assert_untouched(s, 3100, N, 1);
        mm_reducer_destroy(&reducer);
    }
}

static void a_round_without_ranges_does_nothing(void **state)
{
    scene *s = *state;
    mm_reducer *reducer = create(s, 100);
    fill(s, 2);
    mm_reducer_poll(reducer);
    assert_int_equal(mm_reducer_finish(reducer), MM_OK);
    assert_int_equal(mm_reducer_ready(reducer, s->grad, 70, 70), MM_OK);
    assert_int_equal(mm_reducer_finish(reducer), MM_OK);
    mm_reducer_poll(reducer);
    assert_untouched(s, 0, N, 2);
    mm_reducer_destroy(&reducer);
}

static void sum_fractions(scene *s, int64_t bucket_elems)
{
    mm_reducer *reducer = create(s, bucket_elems);
    for (int i = 0; i < N; i++)
        s->grad[i] = 1.0f / (float)(3 + 7 * i + 11 * s->rank);
    give_last_to_first(reducer, s->grad);
    assert_int_equal(mm_reducer_finish(reducer), MM_OK);
    mm_reducer_destroy(&reducer);
}

static void sums_are_the_same_bits_on_every_rank(void **state)
{
    scene *s = *state;
    const int64_t buckets[] = {37, 10 * N};
    float *all = calloc((size_t)s->n_ranks, sizeof s->grad);
    for (int b = 0; b < 2; b++) {
        sum_fractions(s, buckets[b]);
        assert_int_equal(
            mm_comm_allgather(s->comm, s->grad, (int64_t)sizeof s->grad, all),
            MM_OK);
        for (int r = 0; r < s->n_ranks; r++)
            assert_memory_equal(all + (ptrdiff_t)r * N, s->grad,
                                sizeof s->grad);
    }
    free(all);
}

static void sums_are_the_same_bits_when_done_again(void **state)
{
    scene *s = *state;
    static float first[N];
    sum_fractions(s, 300);
    memcpy(first, s->grad, sizeof first);
    for (int i = 0; i < 5; i++) {
        sum_fractions(s, 300);
        assert_memory_equal(first, s->grad, sizeof first);
    }
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(ranges_from_last_to_first_are_summed),
        cmocka_unit_test(one_reducer_serves_many_rounds),
        cmocka_unit_test(ranges_from_first_to_last_are_summed),
        cmocka_unit_test(what_lies_between_ranges_is_left_alone),
        cmocka_unit_test(a_round_without_ranges_does_nothing),
        cmocka_unit_test(sums_are_the_same_bits_on_every_rank),
        cmocka_unit_test(sums_are_the_same_bits_when_done_again),
    };
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
