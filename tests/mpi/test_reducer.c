/* Gradients summed over 1 to 4 ranks, range by range, in the memory of the
 * device that MAGMAX_TEST_DEVICE names.
 *
 * ctest: cost=10 cuda seeds=fp32
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/mpi/reducer_scene.h"

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
    const int64_t buckets[] = {N, 10 * N, 700, 64, 3, 1};
    int n_buckets = mm_device_has_own_memory(s->device) ? 4 : 6;
    for (int b = 0; b < n_buckets; b++) {
        mm_reducer *reducer = create(s, buckets[b]);
        fill(s, 0);
        give_last_to_first(reducer, s->memory);
        finish(s, reducer);
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
        give_last_to_first(reducer, s->memory);
        finish(s, reducer);
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
        assert_int_equal(mm_reducer_ready(reducer, s->memory, lo, lo + 400),
                         MM_OK);
    finish(s, reducer);
    assert_summed(s, 0, N, 3);
    mm_reducer_destroy(&reducer);
}

static void more_messages_may_be_under_way_than_a_transport_keeps(void **state)
{
    scene *s = *state;
    mm_reducer *reducer = create(s, 1);
    if (mm_device_has_own_memory(s->device)) {
        mm_reducer_destroy(&reducer);
        skip(); /* streams keep them, however many */
    }
    fill(s, 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(mm_reducer_ready(reducer, s->memory, i, i + 1), MM_OK);
    finish(s, reducer);
    assert_summed(s, 0, N, 0);
    mm_reducer_destroy(&reducer);
}

static void what_lies_between_ranges_is_left_alone(void **state)
{
    scene *s = *state;
    const int64_t buckets[] = {10, 10 * N};
    for (int b = 0; b < 2; b++) {
        mm_reducer *reducer = create(s, buckets[b]);
        fill(s, 1);
        assert_int_equal(mm_reducer_ready(reducer, s->memory, 3000, 3100),
                         MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->memory, 100, 200), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->memory, 50, 100), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->memory, 200, 230), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->memory, 1000, 1001),
                         MM_OK);
        finish(s, reducer);
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
    finish(s, reducer);
    assert_int_equal(mm_reducer_ready(reducer, s->memory, 70, 70), MM_OK);
    finish(s, reducer);
    mm_reducer_poll(reducer);
    assert_untouched(s, 0, N, 2);
    mm_reducer_destroy(&reducer);
}

static void sum_fractions(scene *s, int64_t bucket_elems)
{
    mm_reducer *reducer = create(s, bucket_elems);
    for (int i = 0; i < N; i++)
        s->grad[i] = 1.0f / (float)(3 + 7 * i + 11 * s->rank);
    put(s);
    give_last_to_first(reducer, s->memory);
    finish(s, reducer);
    mm_reducer_destroy(&reducer);
}

static void sums_are_the_same_bits_on_every_rank(void **state)
{
    scene *s = *state;
    const int64_t buckets[] = {370, 10 * N};
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

static void numbers_of_the_host_are_summed_meanwhile(void **state)
{
    scene *s = *state;
    mm_reducer *reducer = create(s, 100);
    double n = s->n_ranks, below = n * (n - 1) / 2;
    for (int round = 0; round < 3; round++) {
        double told[3] = {1.0 + 0x1p-40 * s->rank, s->rank, 5};
        fill(s, round);
        assert_int_equal(mm_reducer_wait(reducer), MM_OK);
        assert_int_equal(mm_reducer_ready(reducer, s->memory, 0, N), MM_OK);
        assert_int_equal(mm_reducer_sum_host(reducer, told, 2), MM_OK);
        finish(s, reducer);
        assert_summed(s, 0, N, round);
        assert_true(told[0] == n + 0x1p-40 * below);
        assert_true(told[1] == below);
        assert_true(told[2] == 5);
    }
    mm_reducer_destroy(&reducer);
}

static void bf16_is_for_gpus(void **state)
{
    scene *s = *state;
    const mm_reducer_wire wire = {0};
    const mm_reducer_plan plan = {
        .comm = s->comm,
        .device = s->device,
        .stream = s->stream,
        .bucket_elems = N,
        .bf16 = &wire,
    };
    mm_reducer *reducer = NULL;
    if (s->n_ranks == 1 || mm_device_has_own_memory(s->device))
        skip();
    assert_int_equal(mm_reducer_create(&plan, &reducer), MM_E_ARG);
    assert_null(reducer);
    assert_non_null(strstr(mm_fail_message(), "bf16"));
}

static void ranks_that_share_a_gpu_are_refused(void **state)
{
    scene *s = *state;
    if (s->n_ranks == 1 || !mm_device_has_own_memory(s->device))
        skip();
    mm_device *first;
    assert_int_equal(mm_device_open("cuda:0", 1, &first), MM_OK);
    const mm_reducer_plan plan = {
        .comm = s->comm,
        .device = first,
        .stream = s->stream,
        .bucket_elems = N,
    };
    mm_reducer *reducer = NULL;
    assert_int_equal(mm_reducer_create(&plan, &reducer), MM_E_DEVICE);
    assert_null(reducer);
    assert_non_null(strstr(mm_fail_message(), "GPU of its own"));
    mm_device_close(&first);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(ranges_from_last_to_first_are_summed),
        cmocka_unit_test(one_reducer_serves_many_rounds),
        cmocka_unit_test(ranges_from_first_to_last_are_summed),
        cmocka_unit_test(more_messages_may_be_under_way_than_a_transport_keeps),
        cmocka_unit_test(what_lies_between_ranges_is_left_alone),
        cmocka_unit_test(a_round_without_ranges_does_nothing),
        cmocka_unit_test(sums_are_the_same_bits_on_every_rank),
        cmocka_unit_test(sums_are_the_same_bits_when_done_again),
        cmocka_unit_test(numbers_of_the_host_are_summed_meanwhile),
        cmocka_unit_test(bf16_is_for_gpus),
        cmocka_unit_test(ranks_that_share_a_gpu_are_refused),
    };
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
