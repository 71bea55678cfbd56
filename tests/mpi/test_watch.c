/* Ranks that wait for others which are slow, or do not come.
 *
 * With the argument "stuck", one that ends the job (tests/cli/test_watch.py).
 *
 * ctest: ranks=3
 */
#include "comm/watch.h"

#include "src/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <unistd.h>

/* A rank that waits for others has a diagnosis after half of the limit and 2 s
 * (comm/mpi/wait.c), a few times in what is said to take long here. */
static const double limit_s = 0.5, long_s = 6;

typedef struct scene {
    mm_comm *comm;
    int rank, n_ranks;
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    const mm_comm_watch_plan watch = {.limit_s = limit_s};
    *state = s;
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
    free(s);
    return 0;
}

static bool is_last(const scene *s)
{
    return s->rank == s->n_ranks - 1;
}

static void sleep_s(double time_s)
{
    usleep((useconds_t)(1e6 * time_s));
}

static void work_that_takes_longer_than_the_limit_is_waited_for(void **state)
{
    const scene *s = *state;
    if (is_last(s))
        sleep_s(long_s);
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
}

static void so_is_a_rank_that_computes_and_polls(void **state)
{
    const scene *s = *state;
    double begin_s = mm_clock_s();
    mm_comm_begin_compute(s->comm);
    while (is_last(s) && mm_clock_s() - begin_s < long_s) {
        sleep_s(0.005);
        mm_comm_begin_compute(s->comm);
        mm_comm_poll(s->comm);
        mm_comm_end_compute(s->comm);
    }
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
    mm_comm_end_compute(s->comm);
}

typedef struct moment {
    double at_s;
    bool is_own_ready;
} moment;

static mm_status test_clock(void *context, mm_comm_state *state)
{
    const moment *m = context;
    state->is_done = mm_clock_s() > m->at_s;
    state->is_own_ready = m->is_own_ready;
    return MM_OK;
}

static void a_wait_lasts_until_what_is_waited_for_is_there(void **state)
{
    const scene *s = *state;
    moment soon = {.at_s = mm_clock_s() + 0.1, .is_own_ready = true};
    assert_int_equal(mm_comm_wait(s->comm, test_clock, &soon), MM_OK);
    assert_true(mm_clock_s() > soon.at_s);
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
}

/** All wait whenever they are probed, and the waits of some end soon. */
static void a_rank_waits_on_while_others_get_further(void **state)
{
    const scene *s = *state;
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
    double end_s = mm_clock_s() + long_s;
    moment then = {.at_s = end_s, .is_own_ready = true};
    if (is_last(s))
        assert_int_equal(mm_comm_wait(s->comm, test_clock, &then), MM_OK);
    while (!is_last(s) && mm_clock_s() < end_s + 1) {
        then.at_s = mm_clock_s() + 0.1;
        assert_int_equal(mm_comm_wait(s->comm, test_clock, &then), MM_OK);
    }
    assert_int_equal(mm_comm_barrier(s->comm), MM_OK);
}

static mm_status fail_to_test(void *context, mm_comm_state *state)
{
    (void)context;
    (void)state;
    return mm_fail(MM_E_DEVICE, "cannot test");
}

static void what_fails_in_a_test_is_returned(void **state)
{
    const scene *s = *state;
    assert_int_equal(mm_comm_wait(s->comm, fail_to_test, NULL), MM_E_DEVICE);
    assert_string_equal(mm_fail_message(), "cannot test");
}

/** One rank, the reporter, has said why; the others have left it to that. */
static void assert_ended(const scene *s, mm_status st, const char *why)
{
    char named[64];
    assert_int_equal(st, MM_E_COMM);
    if (strstr(mm_fail_message(), "is ending the job"))
        return;
    snprintf(named, sizeof named, "rank %d (host ", s->n_ranks - 1);
    assert_ptr_equal(strstr(mm_fail_message(), named), mm_fail_message());
    assert_non_null(strstr(mm_fail_message(), why));
    assert_null(strstr(mm_fail_message(), "rank 0"));
}

/** All reply, all wait: the last case, since after a failure ranks do not wait
 * again. */
static void a_device_that_does_not_finish_is_named(void **state)
{
    const scene *s = *state;
    moment never = {.at_s = HUGE_VAL, .is_own_ready = !is_last(s)};
    mm_status st = mm_comm_wait(s->comm, test_clock, &never);
    assert_ended(s, st, "its device does not finish");
}

/** The last rank computes and does not poll; the others say what that is. */
static int wait_for_stuck(void)
{
    void *state;
    if (build_scene(&state))
        return 1;
    scene *s = state;
    mm_comm_begin_compute(s->comm);
    while (is_last(s))
        pause();
    if (mm_comm_barrier(s->comm) == MM_E_COMM)
        printf("%s\n", mm_fail_message());
    fflush(stdout);
    mm_comm_abort(s->comm, 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(work_that_takes_longer_than_the_limit_is_waited_for),
        cmocka_unit_test(so_is_a_rank_that_computes_and_polls),
        cmocka_unit_test(a_wait_lasts_until_what_is_waited_for_is_there),
        cmocka_unit_test(a_rank_waits_on_while_others_get_further),
        cmocka_unit_test(what_fails_in_a_test_is_returned),
        cmocka_unit_test(a_device_that_does_not_finish_is_named),
    };
    if (argc > 1 && strcmp(argv[1], "stuck") == 0)
        return wait_for_stuck();
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
