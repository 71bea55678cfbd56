/* Training steps in which one rank fails, for 1 to 4 ranks: all return the
 * same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "tests/unit/step_scene.h"

#include <math.h>

typedef struct scene {
    step_scene base;
    mm_backend faulty; /* the device's, with a stream that complains */
    bool is_last;
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    *state = s;
    step_scene_open(&s->base, "cpu");
    s->is_last =
        mm_comm_rank(s->base.comm) + 1 == mm_comm_n_ranks(s->base.comm);
    s->base.batch.n_global = N_IMAGES * mm_comm_n_ranks(s->base.comm);
    return 0;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    step_scene_close(&s->base);
    free(s);
    return 0;
}

static void one_rank_that_cannot_sum_as_bf16_is_told_to_all(void **state)
{
    scene *s = *state;
    mm_stepper *stepper = NULL;
    mm_step_plan plan = s->base.plan;
    plan.reduce_bf16 = true;
    /* The others believe that theirs have bf16. */
    const int64_t own = s->base.device->act_bytes;
    if (!s->is_last)
        s->base.device->act_bytes = 2;
    assert_int_equal(mm_stepper_create(&plan, &stepper), MM_E_ARG);
    assert_non_null(strstr(mm_fail_message(), "--precision bf16"));
    assert_null(stepper);
    s->base.device->act_bytes = own;
    assert_int_equal(mm_comm_barrier(s->base.comm), MM_OK);
}

static mm_status complain(mm_stream *stream)
{
    (void)stream;
    return mm_fail(MM_E_DEVICE, "a label is out of range");
}

static void one_rank_whose_device_knows_of_a_fault_is_told_to_all(void **state)
{
    scene *s = *state;
    mm_device *device = s->base.device;
    const mm_backend *own = device->backend;
    mm_step_result last;
    float kept = s->base.head_weight[4];
    s->base.head_weight[4] = NAN;
    mm_stepper *stepper = step_scene_begin(&s->base, &s->base.plan);
    ok(mm_stepper_step(stepper, &s->base.batch, MM_OK, 1e-3, &last));
    s->faulty = *own;
    s->faulty.stream_sync = complain;
    if (s->is_last)
        device->backend = &s->faulty;
    assert_int_equal(
        mm_stepper_step(stepper, &s->base.batch, MM_OK, 1e-3, &last),
        MM_E_DEVICE);
    assert_non_null(strstr(mm_fail_message(), "out of range"));
    assert_int_equal(last.n_images, s->base.batch.n_global);
    device->backend = own;
    assert_int_equal(mm_comm_barrier(s->base.comm), MM_OK);
    mm_stepper_destroy(&stepper);
    s->base.head_weight[4] = kept;
}

static void a_loss_that_is_not_finite_is_the_same_error_on_all(void **state)
{
    scene *s = *state;
    mm_step_result last;
    float kept = s->base.head_weight[4];
    if (s->is_last)
        s->base.head_weight[4] = NAN;
    mm_stepper *stepper = step_scene_begin(&s->base, &s->base.plan);
    ok(mm_stepper_step(stepper, &s->base.batch, MM_OK, 1e-3, &last));
    assert_int_equal(mm_stepper_finish(stepper, &last), MM_E_VALUE);
    assert_non_null(strstr(mm_fail_message(), "loss is"));
    assert_int_equal(mm_comm_barrier(s->base.comm), MM_OK);
    mm_stepper_destroy(&stepper);
    s->base.head_weight[4] = kept;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_that_cannot_sum_as_bf16_is_told_to_all),
        cmocka_unit_test(one_rank_whose_device_knows_of_a_fault_is_told_to_all),
        cmocka_unit_test(a_loss_that_is_not_finite_is_the_same_error_on_all),
    };
    return cmocka_run_group_tests(tests, build_scene, clear_scene);
}
