#ifndef MAGMAX_TESTS_UNIT_STEP_SCENE_H
#define MAGMAX_TESTS_UNIT_STEP_SCENE_H

/* A small model, a batch and a plan: what tests of training steps start from.
 * Include cmocka first. */

#include "src/model/params.h"
#include "src/train/step.h"

#include <stdlib.h>

enum { N_IMAGES = 7, N_CLASSES = 3, EMBED = 8, IMAGE_BYTES = 16 * 16 * 3 };

typedef struct step_scene {
    mm_comm *comm;
    mm_device *device;
    mm_model_config config;
    int64_t n_params;
    float *theta_0;
    float head_weight[N_CLASSES * EMBED];
    int32_t classes[N_CLASSES];
    uint8_t images[N_IMAGES * IMAGE_BYTES];
    int32_t labels[N_IMAGES];
    mm_batch batch;
    mm_step_plan plan;
} step_scene;

#define ok(call)                               \
    do {                                       \
        if ((call) != MM_OK)                   \
            fail_msg("%s", mm_fail_message()); \
    } while (0)

static void step_scene_open_model(step_scene *s)
{
    static const char tiny[] =
        "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 16,"
        " \"patch_size\": 4, \"width\": 32, \"layers\": 3, \"head_width\": 8}}";
    mm_tensor_table table = {0};
    ok(mm_model_config_parse(tiny, "tiny", &s->config));
    ok(mm_params_table(&s->config, &table));
    s->n_params = table.n_elems;
    s->theta_0 = malloc((size_t)s->n_params * sizeof *s->theta_0);
    assert_non_null(s->theta_0);
    mm_params_randomize(&s->config, &table, 1, s->theta_0);
    mm_tensor_table_clear(&table);
}

static void step_scene_fill(step_scene *s)
{
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
}

/** One rank, two threads. */
static inline void step_scene_open(step_scene *s, const char *device)
{
    ok(mm_comm_create(NULL, NULL, &s->comm));
    ok(mm_device_open(device, 2, &s->device));
    step_scene_open_model(s);
    step_scene_fill(s);
}

static inline void step_scene_close(step_scene *s)
{
    mm_model_config_clear(&s->config);
    mm_device_close(&s->device);
    mm_comm_destroy(&s->comm);
    free(s->theta_0);
}

/** A stepper at the start of the scene's task. */
static inline mm_stepper *step_scene_begin(step_scene *s,
                                           const mm_step_plan *plan)
{
    mm_stepper *stepper = NULL;
    mm_head head = {
        .n_classes = N_CLASSES, .embed_dim = EMBED, .weight = s->head_weight};
    mm_task task = {.n_classes = N_CLASSES, .classes = s->classes};
    ok(mm_stepper_create(plan, &stepper));
    ok(mm_stepper_start_task(stepper, s->theta_0, &head, &task));
    return stepper;
}

#endif
