/* How a task's samples become batches, for any number of ranks. */
#include "src/input/loader.h"

#include "io/dataset/sample.h"
#include "src/base/rng.h"
#include "src/image/transform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

enum {
    N_STORED = 40, /* images in the half */
    N_MINE = 23,   /* of them in the task */
    N_CLASSES = 6,
    SIZE = 6,
    STORED_SIZE = 9,
    IMAGE_BYTES = SIZE * SIZE * 3,
    BATCH = 8,
    N_STEPS = 3, /* 8 + 8 + 7 */
    N_EPOCHS = 5,
    MOST_RANKS = 5
};

/** A half of random pixels and a task of three of its classes. */
typedef struct fixture {
    uint8_t pixels[N_STORED * STORED_SIZE * STORED_SIZE * 3];
    int32_t labels[N_STORED];
    mm_half half;
    int32_t classes[3], local[N_CLASSES];
    int64_t train[N_MINE];
    mm_task task;
    mm_loader_plan plan;
} fixture;

/** One epoch as all ranks together see it. */
typedef struct epoch {
    int64_t n;
    int64_t n_global[N_STEPS];
    uint8_t images[N_MINE * IMAGE_BYTES];
    int32_t labels[N_MINE];
} epoch;

static mm_device *device;

static int open_device(void **state)
{
    (void)state;
    return mm_device_open("cpu", 1, &device) != MM_OK;
}

static int close_device(void **state)
{
    (void)state;
    mm_device_close(&device);
    return 0;
}

static void fill(fixture *f)
{
    memset(f, 0, sizeof *f);
    mm_rng_key key = mm_rng_key_of(9, MM_RNG_DOMAIN);
    for (size_t i = 0; i < sizeof f->pixels; i++)
        f->pixels[i] = (uint8_t)mm_rng_below(key, i, 256);
    const int32_t classes[3] = {1, 3, 4};
    memcpy(f->classes, classes, sizeof classes);
    for (int i = 0; i < N_CLASSES; i++)
        f->local[i] = -1;
    for (int i = 0; i < 3; i++)
        f->local[classes[i]] = i;
    /* Two of three samples are the task's: 0, 1, 3, 4, 6, ... */
    int n = 0;
    for (int i = 0; i < N_STORED; i++) {
        bool mine = i % 3 < 2 && n < N_MINE;
        f->labels[i] = mine ? classes[i % 7 % 3] : 5;
        if (mine)
            f->train[n++] = i;
    }
    assert_int_equal(n, N_MINE);
    f->half = (mm_half){.n_images = N_STORED,
                        .height = STORED_SIZE,
                        .width = STORED_SIZE,
                        .channels = 3,
                        .pixels = f->pixels,
                        .what = "training image",
                        .labels = f->labels};
    f->task = (mm_task){.n_classes = 3,
                        .classes = f->classes,
                        .local = f->local,
                        .n_train = N_MINE,
                        .train = f->train};
    f->plan = (mm_loader_plan){.half = &f->half,
                               .device = device,
                               .image_size = SIZE,
                               .batch_size = BATCH,
                               .n_ranks = 1,
                               .n_threads = 2,
                               .seed = 3,
                               .shuffle = true,
                               .augment = true};
}

static mm_image stored_image(const fixture *f, int64_t i)
{
    mm_sample_reader *reader;
    mm_image image;
    assert_int_equal(mm_sample_reader_create(&f->half, &reader), MM_OK);
    assert_int_equal(mm_sample_read(reader, i, &image), MM_OK);
    mm_sample_reader_destroy(&reader);
    return image; /* raw pixels: those of the half */
}

static mm_loader *create(const fixture *f, mm_loader_plan plan,
                         int64_t task_number, int64_t epoch_number)
{
    mm_loader *loader = NULL;
    if (mm_loader_create(&plan, &loader) != MM_OK ||
        mm_loader_start_task(loader, &f->task, task_number, N_EPOCHS) != MM_OK)
        fail_msg("%s", mm_fail_message());
    mm_loader_start_epoch(loader, epoch_number);
    return loader;
}

/** Batch `step` of every rank, one behind the other. */
static void collect_step(mm_loader **loaders, int n_ranks, int64_t step,
                         epoch *e)
{
    int64_t n_here = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        mm_batch batch;
        if (mm_loader_batch(loaders[rank], step, &batch) != MM_OK)
            fail_msg("%s", mm_fail_message());
        assert_true(batch.n_images <= mm_loader_most_images(loaders[rank]));
        assert_true(e->n + batch.n_images <= N_MINE);
        memcpy(e->images + e->n * IMAGE_BYTES, batch.images,
               (size_t)(batch.n_images * IMAGE_BYTES));
        memcpy(e->labels + e->n, batch.labels,
               (size_t)batch.n_images * sizeof *batch.labels);
        e->n += batch.n_images;
        n_here += batch.n_images;
        e->n_global[step] = batch.n_global;
    }
    assert_int_equal(n_here, e->n_global[step]);
}

static void collect(const fixture *f, int n_ranks, int64_t task_number,
                    int64_t epoch_number, epoch *e)
{
    mm_loader *loaders[MOST_RANKS];
    mm_loader_plan plan = f->plan;
    plan.n_ranks = n_ranks;
    for (plan.rank = 0; plan.rank < n_ranks; plan.rank++)
        loaders[plan.rank] = create(f, plan, task_number, epoch_number);
    memset(e, 0, sizeof *e);
    assert_int_equal(mm_loader_n_steps(loaders[0]), N_STEPS);
    for (int64_t step = 0; step < N_STEPS; step++)
        collect_step(loaders, n_ranks, step, e);
    for (int rank = 0; rank < n_ranks; rank++)
        mm_loader_destroy(&loaders[rank]);
    assert_int_equal(e->n, N_MINE);
}

/** The samples of an epoch that was not augmented, by their pixels. */
static void identify(const fixture *f, const epoch *e, int64_t order[N_MINE])
{
    uint8_t expected[N_MINE][IMAGE_BYTES];
    mm_transform *transform;
    assert_int_equal(mm_transform_create(SIZE, &transform), MM_OK);
    for (int i = 0; i < N_MINE; i++) {
        mm_image image = stored_image(f, f->train[i]);
        assert_int_equal(
            mm_transform_evaluation(transform, &image, expected[i]), MM_OK);
    }
    mm_transform_destroy(&transform);
    for (int at = 0; at < N_MINE; at++) {
        order[at] = -1;
        for (int i = 0; i < N_MINE; i++)
            if (!memcmp(e->images + at * IMAGE_BYTES, expected[i], IMAGE_BYTES))
                order[at] = f->train[i];
        assert_true(order[at] >= 0);
    }
}

static void any_number_of_ranks_sees_the_same_batches(void **state)
{
    (void)state;
    fixture f;
    epoch one, many;
    fill(&f);
    collect(&f, 1, 2, 1, &one);
    for (int n_ranks = 2; n_ranks <= MOST_RANKS; n_ranks++) {
        collect(&f, n_ranks, 2, 1, &many);
        assert_memory_equal(&one, &many, sizeof one);
    }
}

static void any_number_of_threads_makes_the_same_images(void **state)
{
    (void)state;
    fixture f;
    epoch one, many;
    fill(&f);
    f.plan.n_threads = 1;
    collect(&f, 1, 0, 0, &one);
    f.plan.n_threads = 3;
    collect(&f, 1, 0, 0, &many);
    assert_memory_equal(&one, &many, sizeof one);
}

static void an_epoch_has_every_sample_once(void **state)
{
    (void)state;
    fixture f;
    epoch e;
    fill(&f);
    f.plan.augment = false;
    for (int epoch_number = 0; epoch_number < 3; epoch_number++) {
        int64_t order[N_MINE];
        int n_seen[N_STORED] = {0};
        collect(&f, 3, 0, epoch_number, &e);
        identify(&f, &e, order);
        for (int i = 0; i < N_MINE; i++)
            n_seen[order[i]]++;
        for (int i = 0; i < N_MINE; i++)
            assert_int_equal(n_seen[f.train[i]], 1);
    }
}

static void epochs_tasks_and_seeds_have_orders_of_their_own(void **state)
{
    (void)state;
    fixture f;
    epoch e;
    int64_t orders[5][N_MINE];
    fill(&f);
    f.plan.augment = false;
    collect(&f, 1, 0, 0, &e);
    identify(&f, &e, orders[0]);
    collect(&f, 1, 0, 1, &e);
    identify(&f, &e, orders[1]);
    collect(&f, 1, 1, 0, &e);
    identify(&f, &e, orders[2]);
    f.plan.seed++;
    collect(&f, 1, 0, 0, &e);
    identify(&f, &e, orders[3]);
    memcpy(orders[4], f.train, sizeof orders[4]);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(orders[i], orders[j], sizeof orders[i]);
}

static void an_epoch_can_be_begun_again(void **state)
{
    (void)state;
    fixture f;
    epoch first, again;
    fill(&f);
    collect(&f, 1, 0, 2, &first);
    mm_loader *loader = create(&f, f.plan, 0, 0);
    mm_loader_start_epoch(loader, 1);
    mm_loader_start_epoch(loader, 2);
    memset(&again, 0, sizeof again);
    for (int64_t step = 0; step < N_STEPS; step++)
        collect_step(&loader, 1, step, &again);
    mm_loader_destroy(&loader);
    assert_null(loader);
    assert_memory_equal(&first, &again, sizeof first);
}

static void without_shuffling_the_order_is_the_data_sets(void **state)
{
    (void)state;
    fixture f;
    epoch e;
    int64_t order[N_MINE];
    fill(&f);
    f.plan.shuffle = f.plan.augment = false;
    for (int epoch_number = 0; epoch_number < 2; epoch_number++) {
        collect(&f, 2, 0, epoch_number, &e);
        identify(&f, &e, order);
        assert_memory_equal(order, f.train, sizeof order);
    }
}

static void labels_count_within_the_task(void **state)
{
    (void)state;
    fixture f;
    epoch e;
    int64_t order[N_MINE];
    fill(&f);
    f.plan.augment = false;
    collect(&f, 2, 0, 0, &e);
    identify(&f, &e, order);
    for (int i = 0; i < N_MINE; i++) {
        assert_in_range(e.labels[i], 0, 2);
        assert_int_equal(f.classes[e.labels[i]], f.labels[order[i]]);
    }
}

static void the_last_batch_is_what_is_left(void **state)
{
    (void)state;
    fixture f;
    epoch e;
    fill(&f);
    collect(&f, 4, 0, 0, &e);
    assert_int_equal(e.n_global[0], 8);
    assert_int_equal(e.n_global[1], 8);
    assert_int_equal(e.n_global[2], 7);
}

static void a_rank_beyond_the_last_batch_gets_nothing(void **state)
{
    (void)state;
    fixture f;
    fill(&f);
    f.task.n_train = BATCH + 2;
    f.plan.n_ranks = 5;
    f.plan.rank = 4;
    mm_loader *loader = create(&f, f.plan, 0, 0);
    mm_batch batch;
    assert_int_equal(mm_loader_n_steps(loader), 2);
    assert_int_equal(mm_loader_most_images(loader), 2);
    assert_int_equal(mm_loader_batch(loader, 0, &batch), MM_OK);
    assert_int_equal(mm_loader_batch(loader, 1, &batch), MM_OK);
    assert_int_equal(batch.n_images, 0);
    assert_int_equal(batch.n_global, 2);
    mm_loader_destroy(&loader);
}

static void augmented_images_are_the_training_transforms(void **state)
{
    (void)state;
    fixture f;
    epoch e;
    uint8_t expected[IMAGE_BYTES];
    mm_transform *transform;
    fill(&f);
    f.plan.shuffle = false;
    collect(&f, 3, 1, 4, &e);
    assert_int_equal(mm_transform_create(SIZE, &transform), MM_OK);
    for (int i = 0; i < N_MINE; i++) {
        mm_image image = stored_image(&f, f.train[i]);
        assert_int_equal(mm_transform_training(transform, &image, f.plan.seed,
                                               4, f.train[i], expected),
                         MM_OK);
        assert_memory_equal(e.images + i * IMAGE_BYTES, expected, IMAGE_BYTES);
    }
    mm_transform_destroy(&transform);
}

static void a_larger_task_can_follow(void **state)
{
    (void)state;
    fixture f;
    fill(&f);
    mm_task small = f.task;
    small.n_train = 2;
    mm_loader *loader = create(&f, f.plan, 0, 0);
    assert_int_equal(mm_loader_start_task(loader, &small, 1, 1), MM_OK);
    assert_int_equal(mm_loader_n_steps(loader), 1);
    assert_int_equal(mm_loader_start_task(loader, &f.task, 2, 1), MM_OK);
    mm_loader_start_epoch(loader, 0);
    epoch after, alone;
    memset(&after, 0, sizeof after);
    for (int64_t step = 0; step < N_STEPS; step++)
        collect_step(&loader, 1, step, &after);
    mm_loader_destroy(&loader);
    collect(&f, 1, 2, 0, &alone);
    assert_memory_equal(&after, &alone, sizeof after);
}

static void an_image_without_pixels_fails_with_its_index(void **state)
{
    (void)state;
    fixture f;
    mm_batch batch;
    fill(&f);
    f.half.height = 0;
    f.plan.shuffle = false;
    f.plan.n_threads = 1;
    f.task.n_train = 1;
    f.train[0] = 31;
    mm_loader *loader = create(&f, f.plan, 0, 0);
    assert_int_equal(mm_loader_batch(loader, 0, &batch), MM_E_VALUE);
    if (!strstr(mm_fail_message(), "training image 31: an image of 0 x 9"))
        fail_msg("%s", mm_fail_message());
    assert_int_equal(batch.n_images, 0);
    assert_int_equal(batch.n_global, 1);
    mm_loader_destroy(&loader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_sees_the_same_batches),
        cmocka_unit_test(any_number_of_threads_makes_the_same_images),
        cmocka_unit_test(an_epoch_has_every_sample_once),
        cmocka_unit_test(epochs_tasks_and_seeds_have_orders_of_their_own),
        cmocka_unit_test(an_epoch_can_be_begun_again),
        cmocka_unit_test(without_shuffling_the_order_is_the_data_sets),
        cmocka_unit_test(labels_count_within_the_task),
        cmocka_unit_test(the_last_batch_is_what_is_left),
        cmocka_unit_test(a_rank_beyond_the_last_batch_gets_nothing),
        cmocka_unit_test(augmented_images_are_the_training_transforms),
        cmocka_unit_test(a_larger_task_can_follow),
        cmocka_unit_test(an_image_without_pixels_fails_with_its_index),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
