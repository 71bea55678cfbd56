/* Collective calls that are compared between ranks (comm/check_same.h).
 *
 * With an argument, calls that differ and end the job
 * (tests/cli/test_collectives.py).
 *
 * ctest: ranks=3
 */
#include "comm/check_same.h"

#include "comm/reducer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

typedef struct scene {
    mm_comm *comm;
    int rank;
    bool is_last;
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    const mm_comm_watch_plan watch = {.limit_s = 60};
    *state = s;
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK ||
        mm_comm_watch(s->comm, &watch) != MM_OK)
        return 1;
    s->rank = mm_comm_rank(s->comm);
    s->is_last = s->rank == mm_comm_n_ranks(s->comm) - 1;
    return 0;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    mm_comm_destroy(&s->comm);
    free(s);
    return 0;
}

static mm_status check_all_kinds(mm_comm *comm, const char *path, double lr,
                                 int64_t n, const int32_t *sizes)
{
    return MM_CHECK_SAME(comm, MM_SAME_TEXT(path), MM_SAME_REAL(lr),
                         MM_SAME_INT(n), MM_SAME_BYTES(sizes, 4 * n));
}

static void calls_that_are_the_same_go_on(void **state)
{
    const scene *s = *state;
    const int32_t sizes[] = {1, 2, 3};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            check_all_kinds(s->comm, i ? "a/b.h5" : NULL, 0.1 * i, i, sizes),
            MM_OK);
        assert_int_equal(MM_CHECK_CALL(s->comm), MM_OK);
    }
}

static void what_is_a_rank_s_own_may_differ(void **state)
{
    const scene *s = *state;
    char all[16];
    mm_status st = s->is_last ? mm_fail(MM_E_IO, "disk") : MM_OK;
    assert_int_equal(mm_comm_agree(s->comm, st), MM_E_IO);
    assert_int_equal(
        mm_comm_collect(s->comm, "abc", s->rank + 1, s->rank ? NULL : all),
        MM_OK);
}

static void without_a_communicator_nothing_is_compared(void **state)
{
    const scene *s = *state;
    assert_int_equal(MM_CHECK_SAME(NULL, MM_SAME_INT(s->rank)), MM_OK);
}

/* ---- calls that differ on the last rank ---------------------------------- */

static mm_status differ_in_length(const scene *s)
{
    char data[16] = {0};
    return mm_comm_broadcast(s->comm, data, s->is_last ? 16 : 8, 0);
}

static mm_status differ_in_text(const scene *s)
{
    return check_all_kinds(s->comm, s->is_last ? "b.h5" : "a.h5", 1, 0, NULL);
}

static mm_status differ_in_range(const scene *s)
{
    mm_reducer *reducer = NULL;
    static float grad[8];
    mm_reducer_plan plan = {.comm = s->comm, .bucket_elems = 100};
    MM_TRY(mm_device_open("cpu", 1, &plan.device));
    MM_TRY(mm_stream_create(plan.device, &plan.stream));
    MM_TRY(mm_reducer_create(&plan, &reducer));
    MM_TRY(mm_reducer_ready(reducer, grad, 4, 8));
    return mm_reducer_ready(reducer, grad, s->is_last ? 1 : 0, 4);
}

static mm_status differ_in_call(const scene *s)
{
    double sum = 1;
    return s->is_last ? mm_comm_barrier(s->comm)
                      : mm_comm_sum_double(s->comm, &sum, 1);
}

/** The last rank goes, as it would after an error that is not agreed. */
static mm_status differ_in_leaving(const scene *s)
{
    mm_comm *comm = s->comm;
    if (s->is_last) {
        mm_comm_destroy(&comm);
        return MM_OK;
    }
    return mm_comm_barrier(s->comm);
}

static int differ(const char *how)
{
    static const struct {
        const char *name;
        mm_status (*call)(const scene *s);
    } ways[] = {
        {"length", differ_in_length},   {"text", differ_in_text},
        {"range", differ_in_range},     {"call", differ_in_call},
        {"leaving", differ_in_leaving},
    };
    void *state;
    if (!MAGMAX_CHECK_COLLECTIVES)
        return 77;
    if (strcmp(how, "built") == 0)
        return 0;
    if (build_scene(&state))
        return 1;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, how) == 0)
            (void)ways[i].call(state);
    printf("went on\n");
    fflush(stdout);
    mm_comm_abort(((scene *)state)->comm, 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(calls_that_are_the_same_go_on),
        cmocka_unit_test(what_is_a_rank_s_own_may_differ),
        cmocka_unit_test(without_a_communicator_nothing_is_compared),
    };
    if (argc > 1)
        return differ(argv[1]);
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
