/* The learning rate of each step. */
#include "src/train/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

static void assert_close(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12))
        fail_msg("%.17g is not %.17g", got, want);
}

static void warm_up_is_a_line_from_the_first_step(void **state)
{
    (void)state;
    for (int step = 0; step < 10; step++)
        assert_close(mm_schedule_lr(0.5, step, 100, 10), 0.05 * (step + 1));
}

static void afterwards_it_falls_as_half_a_cosine(void **state)
{
    (void)state;
    /* 40 steps after 10 of warm-up: quarters of the cosine. */
    assert_close(mm_schedule_lr(2, 10, 50, 10), 2);
    assert_close(mm_schedule_lr(2, 20, 50, 10), 1 + sqrt(0.5));
    assert_close(mm_schedule_lr(2, 30, 50, 10), 1);
    assert_close(mm_schedule_lr(2, 40, 50, 10), 1 - sqrt(0.5));
    for (int step = 11; step < 50; step++)
        assert_true(mm_schedule_lr(2, step, 50, 10) <
                    mm_schedule_lr(2, step - 1, 50, 10));
    assert_true(mm_schedule_lr(2, 49, 50, 10) > 0);
}

static void without_warm_up_it_starts_at_its_highest(void **state)
{
    (void)state;
    assert_close(mm_schedule_lr(1e-3, 0, 4, 0), 1e-3);
    assert_close(mm_schedule_lr(1e-3, 2, 4, 0), 0.5e-3);
    assert_close(mm_schedule_lr(1e-3, 0, 1, 0), 1e-3);
}

static void a_run_within_its_warm_up_never_gets_there(void **state)
{
    (void)state;
    for (int step = 0; step < 5; step++)
        assert_close(mm_schedule_lr(1, step, 5, 500), (step + 1) / 500.0);
    assert_close(mm_schedule_lr(1, 4, 5, 5), 1);
}

static void it_is_proportional_to_the_rate(void **state)
{
    (void)state;
    for (int step = 0; step < 30; step++) {
        assert_close(mm_schedule_lr(8, step, 30, 7),
                     8 * mm_schedule_lr(1, step, 30, 7));
        assert_close(mm_schedule_lr(0, step, 30, 7), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_is_a_line_from_the_first_step),
        cmocka_unit_test(afterwards_it_falls_as_half_a_cosine),
        cmocka_unit_test(without_warm_up_it_starts_at_its_highest),
        cmocka_unit_test(a_run_within_its_warm_up_never_gets_there),
        cmocka_unit_test(it_is_proportional_to_the_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
