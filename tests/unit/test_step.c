/* Training steps: what they report and when, what they change, and how much
 * memory they take.
 *
 * ctest: cuda timeout=300 cost=15 processors=2
 */
#include "src/model/params.h"
#include "src/train/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

enum { N_IMAGES = 7, N_CLASSES = 3, EMBED = 8, IMAGE_BYTES = 16 * 16 * 3 };

static const char tiny[] =
    "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 16, \"patch_size\": 4,"
    " \"width\": 32, \"layers\": 3, \"head_width\": 8}}";

typedef struct scene {
    mm_comm *comm;
    mm_device *device;
    mm_model_config config;
    int64_t n_params;
    float *theta, *before;
    float head_weight[N_CLASSES * EMBED];
    int32_t classes[N_CLASSES];
    uint8_t images[N_IMAGES * IMAGE_BYTES];
    int32_t labels[N_IMAGES];
    mm_batch batch;
    mm_step_plan plan;
} scene;

#define ok(call)                               \
    do {                                       \
        if ((call) != MM_OK)                   \
            fail_msg("%s", mm_fail_message()); \
    } while (0)

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    const char *name = getenv("MAGMAX_TEST_DEVICE");
    mm_tensor_table table = {0};
    *state = s;
    ok(mm_comm_create(NULL, NULL, &s->comm));
    ok(mm_device_open(name ? name : "cpu", 2, &s->device));
    ok(mm_model_config_parse(tiny, "tiny", &s->config));
    ok(mm_params_table(&s->config, &table));
    s->n_params = table.n_elems;
    s->theta = malloc((size_t)s->n_params * sizeof *s->theta);
    s->before = malloc((size_t)s->n_params * sizeof *s->theta);
    mm_params_init(&s->config, &table, 1, s->before);
    mm_tensor_table_clear(&table);
    for (int i = 0; i < N_CLASSES * EMBED; i++)
        s->head_weight[i] = (float)((i * 5) % 7) - 3;
    for (int i = 0; i < N_CLASSES; i++)
        s->classes[i] = i;
    for (int i = 0; i < N_IMAGES * IMAGE_BYTES; i++)
        s->images[i] = (uint8_t)(i * 31 % 251);
    for (int i = 0; i < N_IMAGES; i++)
        s->labels[i] = i % N_CLASSES;
    s->batch = (mm_batch){.n_images = N_IMAGES,
                          .n_global = N_IMAGES,
                          .images = s->images,
                          .labels = s->labels};
    s->plan = (mm_step_plan){.comm = s->comm,
                             .device = s->device,
                             .config = &s->config,
                             .most_images = N_IMAGES,
                             .most_classes = N_CLASSES,
                             .accumulate = 1,
                             .weight_decay = 0.1,
                             .clip = 1};
    return 0;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    mm_model_config_clear(&s->config);
    mm_device_close(&s->device);
    mm_comm_destroy(&s->comm);
    free(s->theta);
    free(s->before);
    free(s);
    return 0;
}

static mm_stepper *begin(scene *s, const mm_step_plan *plan)
{
    mm_stepper *stepper = NULL;
    mm_head head = {
        .n_classes = N_CLASSES, .embed_dim = EMBED, .weight = s->head_weight};
    mm_task task = {.n_classes = N_CLASSES, .classes = s->classes};
    ok(mm_stepper_create(plan, &stepper));
    ok(mm_stepper_begin_task(stepper, s->before, &head, &task));
    return stepper;
}

/** Losses of `n` steps; s->theta is what they leave. */
static void train(scene *s, const mm_step_plan *plan, int n, double *losses)
{
    mm_stepper *stepper = begin(s, plan);
    mm_step_result last;
    for (int i = 0; i < n; i++) {
        ok(mm_stepper_step(stepper, &s->batch, MM_OK, 1e-3, &last));
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
    return !memcmp(a, b, (size_t)s->n_params * sizeof *a);
}

static void a_result_comes_with_the_next_step(void **state)
{
    scene *s = *state;
    double losses[6];
    train(s, &s->plan, 6, losses);
    assert_true(losses[5] < losses[0]);
    assert_false(same_weights(s, s->theta, s->before));
}

static void parts_add_up_to_the_whole_batch(void **state)
{
    scene *s = *state;
    double whole[4], parts[4], error = 0, moved = 0;
    float *theta = malloc((size_t)s->n_params * sizeof *theta);
    train(s, &s->plan, 4, whole);
    memcpy(theta, s->theta, (size_t)s->n_params * sizeof *theta);
    static const int64_t n_parts[] = {2, 3, N_IMAGES};
    for (int k = 0; k < 3; k++) {
        mm_step_plan plan = s->plan;
        plan.accumulate = n_parts[k];
        train(s, &plan, 4, parts);
        for (int i = 0; i < 4; i++)
            assert_true(fabs(parts[i] - whole[i]) < 2e-5 * whole[i]);
        for (int64_t i = 0; i < s->n_params; i++) {
            error += pow((double)s->theta[i] - theta[i], 2);
            moved += pow((double)theta[i] - s->before[i], 2);
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
    float *theta = malloc((size_t)s->n_params * sizeof *theta);
    for (int64_t n_parts = 1; n_parts <= 3; n_parts += 2) {
        mm_step_plan plan = s->plan;
        plan.accumulate = n_parts;
        train(s, &plan, 3, kept);
        memcpy(theta, s->theta, (size_t)s->n_params * sizeof *theta);
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
    float kept = s->head_weight[4];
    s->head_weight[4] = NAN;
    mm_stepper *stepper = begin(s, &s->plan);
    ok(mm_stepper_step(stepper, &s->batch, MM_OK, 1e-3, &last));
    assert_int_equal(mm_stepper_step(stepper, &s->batch, MM_OK, 1e-3, &last),
                     MM_E_VALUE);
    assert_non_null(strstr(mm_fail_message(), "loss is"));
    assert_int_equal(last.n_images, N_IMAGES);
    assert_false(isfinite(last.loss));
    ok(mm_stepper_read(stepper, s->theta));
    assert_true(same_weights(s, s->theta, s->before));
    mm_stepper_destroy(&stepper);
    s->head_weight[4] = kept;
}

static void a_batch_that_failed_changes_no_weight(void **state)
{
    scene *s = *state;
    mm_step_result last;
    mm_batch none = {.n_global = N_IMAGES};
    mm_stepper *stepper = begin(s, &s->plan);
    mm_status st = mm_fail(MM_E_FORMAT, "a broken image");
    assert_int_equal(mm_stepper_step(stepper, &none, st, 1e-3, &last),
                     MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), "broken image"));
    ok(mm_stepper_finish(stepper, &last));
    assert_int_equal(last.n_images, 0);
    ok(mm_stepper_read(stepper, s->theta));
    assert_true(same_weights(s, s->theta, s->before));
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
        mm_step_plan plan = s->plan;
        plan.accumulate = 1 + i / 2 * 2;
        plan.recompute = i % 2;
        mm_stepper *stepper = begin(s, &plan);
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
    mm_step_plan plan = s->plan;
    ok(mm_model_config_find("ViT-B-32", &config));
    plan.config = &config;
    plan.most_images = B;
    int64_t act = mm_device_act_bytes(s->device), n = (int64_t)B * T;
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
