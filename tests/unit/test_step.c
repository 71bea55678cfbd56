/* Training steps: what they report and when, what they change, and how much
 * memory they take.
 *
 * ctest: cost=15 processors=2 cuda bias_sums=fp32 seeds=fp32
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/step_scene.h"

#include <math.h>

typedef struct scene {
    step_scene base;
    float *theta; /* [n_params] what training leaves */
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    const char *device = getenv("MAGMAX_TEST_DEVICE");
    *state = s;
    step_scene_open(&s->base, device ? device : "cpu");
    s->theta = malloc((size_t)s->base.n_params * sizeof *s->theta);
    return s->theta ? 0 : -1;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    step_scene_close(&s->base);
    free(s->theta);
    free(s);
    return 0;
}

/** Losses of `n` steps; s->theta is what they leave. */
static void train(scene *s, const mm_step_plan *plan, int n, double *losses)
{
    mm_stepper *stepper = step_scene_begin(&s->base, plan);
    mm_step_result last;
    for (int i = 0; i < n; i++) {
        ok(mm_stepper_step(stepper, &s->base.batch, MM_OK, 1e-3, &last));
        assert_int_equal(last.n_images, i ? N_IMAGES : 0);
        if (i > 0)
            losses[i - 1] = last.loss;
    }
    ok(mm_stepper_finish(stepper, &last));
    assert_int_equal(last.n_images, N_IMAGES);
    losses[n - 1] = last.loss;
    ok(mm_stepper_finish(stepper, &last));
    assert_int_equal(last.n_images, 0);
    ok(mm_stepper_read(stepper, s->theta));
    mm_stepper_destroy(&stepper);
}

static bool same_weights(const scene *s, const float *a, const float *b)
{
    return !memcmp(a, b, (size_t)s->base.n_params * sizeof *a);
}

static void a_result_comes_with_the_next_step(void **state)
{
    scene *s = *state;
    double losses[6];
    train(s, &s->base.plan, 6, losses);
    assert_true(losses[5] < losses[0]);
    assert_false(same_weights(s, s->theta, s->base.theta_0));
}

static void parts_add_up_to_the_whole_batch(void **state)
{
    scene *s = *state;
    double whole[4], parts[4], error = 0, moved = 0;
    float *theta = malloc((size_t)s->base.n_params * sizeof *theta);
    train(s, &s->base.plan, 4, whole);
    memcpy(theta, s->theta, (size_t)s->base.n_params * sizeof *theta);
    static const int64_t n_parts[] = {2, 3, N_IMAGES};
    for (int k = 0; k < 3; k++) {
        mm_step_plan plan = s->base.plan;
        plan.accumulate = n_parts[k];
        train(s, &plan, 4, parts);
        for (int i = 0; i < 4; i++)
            assert_true(fabs(parts[i] - whole[i]) < 2e-5 * whole[i]);
        for (int64_t i = 0; i < s->base.n_params; i++) {
            error += pow((double)s->theta[i] - theta[i], 2);
            moved += pow((double)theta[i] - s->base.theta_0[i], 2);
        }
    }
    /* Adam's first steps divide gradients by their own size, so that rounding
     * decides the sign of those that are nearly zero. */
    assert_true(sqrt(error / moved) < 5e-3);
    free(theta);
}

static void recomputing_changes_no_bit(void **state)
{
    scene *s = *state;
    double kept[3], again[3];
    float *theta = malloc((size_t)s->base.n_params * sizeof *theta);
    for (int64_t n_parts = 1; n_parts <= 3; n_parts += 2) {
        mm_step_plan plan = s->base.plan;
        plan.accumulate = n_parts;
        train(s, &plan, 3, kept);
        memcpy(theta, s->theta, (size_t)s->base.n_params * sizeof *theta);
        plan.recompute = true;
        train(s, &plan, 3, again);
        assert_memory_equal(kept, again, sizeof kept);
        assert_true(same_weights(s, s->theta, theta));
    }
    free(theta);
}

static void a_loss_that_is_not_finite_changes_no_weight(void **state)
{
    scene *s = *state;
    mm_step_result last;
    float kept = s->base.head_weight[4];
    s->base.head_weight[4] = NAN;
    mm_stepper *stepper = step_scene_begin(&s->base, &s->base.plan);
    ok(mm_stepper_step(stepper, &s->base.batch, MM_OK, 1e-3, &last));
    assert_int_equal(
        mm_stepper_step(stepper, &s->base.batch, MM_OK, 1e-3, &last),
        MM_E_VALUE);
    assert_non_null(strstr(mm_fail_message(), "loss is"));
    assert_int_equal(last.n_images, N_IMAGES);
    assert_false((bool)isfinite(last.loss));
    ok(mm_stepper_read(stepper, s->theta));
    assert_true(same_weights(s, s->theta, s->base.theta_0));
    mm_stepper_destroy(&stepper);
    s->base.head_weight[4] = kept;
}

static void a_batch_that_failed_changes_no_weight(void **state)
{
    scene *s = *state;
    mm_step_result last;
    mm_batch none = {.n_global = N_IMAGES};
    mm_stepper *stepper = step_scene_begin(&s->base, &s->base.plan);
    mm_status st = mm_fail(MM_E_FORMAT, "a broken image");
    assert_int_equal(mm_stepper_step(stepper, &none, st, 1e-3, &last),
                     MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), "broken image"));
    ok(mm_stepper_finish(stepper, &last));
    assert_int_equal(last.n_images, 0);
    ok(mm_stepper_read(stepper, s->theta));
    assert_true(same_weights(s, s->theta, s->base.theta_0));
    mm_stepper_destroy(&stepper);
}

static int64_t bytes_of(const mm_step_plan *plan)
{
    int64_t n_bytes;
    ok(mm_stepper_count_bytes(plan, &n_bytes));
    return n_bytes;
}

static void the_bytes_counted_are_those_taken(void **state)
{
    scene *s = *state;
    for (int i = 0; i < 4; i++) {
        mm_step_plan plan = s->base.plan;
        plan.accumulate = 1 + i / 2 * 2;
        plan.recompute = i % 2;
        mm_stepper *stepper = step_scene_begin(&s->base, &plan);
        assert_int_equal(mm_stepper_n_bytes(stepper), bytes_of(&plan));
        mm_stepper_destroy(&stepper);
    }
}

/* Of a ViT-B/32, 128 images; a token's activations in a block: layer norms,
 * attention's and its input's three, the sum, and twice the MLP's four. */
static void saving_memory_saves_as_much_as_it_should(void **state)
{
    enum { B = 128, T = 50, C = 768, H = 12, L = 12 };
    scene *s = *state;
    mm_model_config config = {0};
    mm_step_plan plan = s->base.plan;
    ok(mm_model_config_find("ViT-B-32", &config));
    plan.config = &config;
    plan.most_images = B;
    int64_t act = mm_device_act_bytes(s->base.device), n = (int64_t)B * T;
    int64_t head = 5 * C * act + (2 + H) * 4; /* a token, up to attention */
    int64_t tail = 10 * C * act + 2 * 4;      /* a row behind it          */
    int64_t whole = bytes_of(&plan);
    plan.recompute = true;
    /* Every block but the first, which the others share. */
    assert_int_equal(whole - bytes_of(&plan),
                     (L - 1) * n * head + ((L - 2) * n + B) * tail);
    plan.recompute = false;
    plan.accumulate = 2;
    int64_t half = bytes_of(&plan);
    plan.accumulate = 4;
    int64_t quarter = bytes_of(&plan);
    assert_int_equal(whole - half, 2 * (half - quarter));
    /* What the blocks keep, and more, is halved. */
    assert_true(2 * (whole - half) > L * n * head + (L - 1) * n * tail);
    mm_model_config_clear(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_result_comes_with_the_next_step),
        cmocka_unit_test(parts_add_up_to_the_whole_batch),
        cmocka_unit_test(recomputing_changes_no_bit),
        cmocka_unit_test(a_loss_that_is_not_finite_changes_no_weight),
        cmocka_unit_test(a_batch_that_failed_changes_no_weight),
        cmocka_unit_test(the_bytes_counted_are_those_taken),
        cmocka_unit_test(saving_memory_saves_as_much_as_it_should),
    };
    return cmocka_run_group_tests(tests, build_scene, clear_scene);
}
