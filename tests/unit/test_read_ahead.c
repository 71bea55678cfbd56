/* Encoded images, read ahead by threads: the same batches for any number of
 * threads and ranks, whatever is wrong with some images. */
#include "src/input/loader.h"

#include "src/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

enum {
    N_IMAGES = 29,
    SIZE = 8,
    IMAGE_BYTES = SIZE * SIZE * 3,
    BATCH = 8,
    N_STEPS = 4, /* 8 + 8 + 8 + 5 */
    N_EPOCHS = 3,
    MOST_FILE_BYTES = 32 + 20 * 20 * 3,
    MOST_RANKS = 4
};

static const int worker_counts[] = {0, 1, 2, 5};

/** A half of PPM files of several sizes, in memory. */
typedef struct fixture {
    uint8_t bytes[N_IMAGES * MOST_FILE_BYTES];
    int64_t offsets[N_IMAGES + 1];
    int32_t labels[N_IMAGES], classes[2], local[2];
    int64_t train[N_IMAGES];
    mm_half half;
    mm_task task;
    mm_loader_plan plan;
} fixture;

/** What all ranks together saw of a run of epochs. */
typedef struct seen {
    int64_t n, n_bad;
    int64_t n_of_step[N_EPOCHS * N_STEPS], n_global[N_EPOCHS * N_STEPS];
    uint8_t images[N_EPOCHS * N_IMAGES * IMAGE_BYTES];
    int32_t labels[N_EPOCHS * N_IMAGES];
    int64_t bad[N_EPOCHS * N_IMAGES];
} seen;

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
    mm_rng_key key = mm_rng_key_of(4, MM_RNG_DOMAIN);
    int64_t at = 0;
    for (int i = 0; i < N_IMAGES; i++) {
        int height = 8 + i % 5 * 3, width = 20 - i % 4 * 4;
        f->offsets[i] = at;
        at += sprintf((char *)f->bytes + at, "P6\n%d %d\n255\n", width, height);
        for (int j = 0; j < height * width * 3; j++, at++)
            f->bytes[at] = (uint8_t)mm_rng_below(key, (uint64_t)at, 256);
        f->labels[i] = i % 2;
        f->train[i] = i;
    }
    f->offsets[N_IMAGES] = at;
    f->classes[1] = f->local[1] = 1;
    f->half = (mm_half){.n_images = N_IMAGES,
                        .storage = MM_STORED_BYTES,
                        .bytes = f->bytes,
                        .offsets = f->offsets,
                        .what = "training image",
                        .labels = f->labels};
    f->task = (mm_task){.n_classes = 2,
                        .classes = f->classes,
                        .local = f->local,
                        .n_train = N_IMAGES,
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

/** No longer an image. */
static void spoil(fixture *f, int64_t sample)
{
    f->bytes[f->offsets[sample]] = 'X';
}

static mm_loader *create(const fixture *f, const mm_loader_plan *plan)
{
    mm_loader *loader = NULL;
    if (mm_loader_create(plan, &loader) != MM_OK ||
        mm_loader_start_task(loader, &f->task, 0, N_EPOCHS) != MM_OK)
        fail_msg("%s", mm_fail_message());
    return loader;
}

static void take(seen *s, int step, const mm_batch *batch)
{
    memcpy(s->images + s->n * IMAGE_BYTES, batch->images,
           (size_t)batch->n_images * IMAGE_BYTES);
    memcpy(s->labels + s->n, batch->labels,
           (size_t)batch->n_images * sizeof *batch->labels);
    s->n += batch->n_images;
    s->n_of_step[step] += batch->n_images;
    s->n_global[step] = batch->n_global;
    for (int64_t i = 0; i < batch->n_bad; i++)
        s->bad[s->n_bad++] = batch->bad[i].sample;
}

static void collect(const fixture *f, int n_ranks, int n_workers, seen *s)
{
    mm_loader *loaders[MOST_RANKS];
    mm_loader_plan plan = f->plan;
    plan.n_ranks = n_ranks;
    plan.n_workers = n_workers;
    memset(s, 0, sizeof *s);
    for (plan.rank = 0; plan.rank < n_ranks; plan.rank++)
        loaders[plan.rank] = create(f, &plan);
    for (int epoch = 0; epoch < N_EPOCHS; epoch++) {
        for (int rank = 0; rank < n_ranks; rank++)
            mm_loader_start_epoch(loaders[rank], epoch);
        for (int step = 0; step < N_STEPS; step++) {
            for (int rank = 0; rank < n_ranks; rank++) {
                mm_batch batch;
                if (mm_loader_batch(loaders[rank], step, &batch) != MM_OK)
                    fail_msg("%s", mm_fail_message());
                take(s, epoch * N_STEPS + step, &batch);
            }
        }
    }
    for (int rank = 0; rank < n_ranks; rank++)
        mm_loader_destroy(&loaders[rank]);
}

static void assert_all_see_the_same(const fixture *f, seen *one)
{
    static seen other;
    collect(f, 1, 0, one);
    for (size_t w = 0; w < sizeof worker_counts / sizeof *worker_counts; w++)
        for (int n_ranks = 1; n_ranks <= MOST_RANKS; n_ranks++) {
            collect(f, n_ranks, worker_counts[w], &other);
            assert_memory_equal(one, &other, sizeof other);
        }
}

static void any_number_of_workers_and_ranks_sees_the_same(void **state)
{
    (void)state;
    static fixture f;
    static seen one;
    fill(&f);
    assert_all_see_the_same(&f, &one);
    assert_int_equal(one.n, N_EPOCHS * N_IMAGES);
    assert_int_equal(one.n_bad, 0);
    assert_int_equal(one.n_global[N_STEPS - 1], N_IMAGES % BATCH);
    /* Epochs differ: order and crops are their own. */
    assert_memory_not_equal(one.images, one.images + N_IMAGES * IMAGE_BYTES,
                            N_IMAGES * IMAGE_BYTES);
}

static void raw_pixels_are_read_ahead_likewise(void **state)
{
    (void)state;
    static fixture f;
    static seen one;
    fill(&f);
    f.half.storage = MM_STORED_PIXELS;
    f.half.pixels = f.bytes;
    f.half.height = 9;
    f.half.width = 12;
    f.half.channels = 3;
    assert_all_see_the_same(&f, &one);
}

static void skipped_images_are_missing_and_nothing_else_changes(void **state)
{
    (void)state;
    static fixture f;
    static seen whole, some;
    int n_found[N_IMAGES] = {0};
    fill(&f);
    collect(&f, 1, 0, &whole);
    const int64_t bad[] = {0, 7, 8, 9, 28};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        spoil(&f, bad[i]);
    f.plan.skip_bad = true;
    assert_all_see_the_same(&f, &some);
    assert_int_equal(some.n_bad, 5 * N_EPOCHS);
    assert_int_equal(some.n, (N_IMAGES - 5) * N_EPOCHS);
    for (int64_t i = 0; i < some.n_bad; i++)
        n_found[some.bad[i]]++;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(n_found[bad[i]], N_EPOCHS);
    /* What is left is a subsequence of what was there. */
    int64_t at = 0;
    for (int64_t i = 0; i < whole.n && at < some.n; i++)
        at += memcmp(whole.images + i * IMAGE_BYTES,
                     some.images + at * IMAGE_BYTES, IMAGE_BYTES) == 0;
    assert_int_equal(at, some.n);
}

static void a_batch_may_lose_all_its_images(void **state)
{
    (void)state;
    static fixture f;
    static seen s;
    fill(&f);
    f.plan.shuffle = false;
    f.plan.skip_bad = true;
    for (int i = BATCH; i < 2 * BATCH; i++)
        spoil(&f, i);
    collect(&f, 2, 2, &s);
    assert_int_equal(s.n_of_step[0], BATCH);
    assert_int_equal(s.n_of_step[1], 0);
    assert_int_equal(s.n_of_step[2], BATCH);
}

static void the_first_bad_image_of_a_batch_is_named(void **state)
{
    (void)state;
    static fixture f;
    fill(&f);
    f.plan.shuffle = false;
    spoil(&f, 13);
    spoil(&f, 10);
    spoil(&f, 11);
    for (size_t w = 0; w < sizeof worker_counts / sizeof *worker_counts; w++) {
        mm_batch batch;
        f.plan.n_workers = worker_counts[w];
        mm_loader *loader = create(&f, &f.plan);
        mm_loader_start_epoch(loader, 0);
        assert_int_equal(mm_loader_batch(loader, 0, &batch), MM_OK);
        assert_int_equal(mm_loader_batch(loader, 1, &batch), MM_E_FORMAT);
        if (!strstr(mm_fail_message(), "training image 10"))
            fail_msg("%s", mm_fail_message());
        assert_int_equal(batch.n_global, BATCH);
        /* Who goes on gets the batches that follow. */
        assert_int_equal(mm_loader_batch(loader, 2, &batch), MM_OK);
        assert_int_equal(batch.n_images, BATCH);
        mm_loader_destroy(&loader);
    }
}

static void a_packed_image_is_named_with_the_path_it_had(void **state)
{
    (void)state;
    static fixture f;
    mm_batch batch;
    char paths[N_IMAGES * 16];
    int64_t starts[N_IMAGES], at = 0;
    fill(&f);
    for (int i = 0; i < N_IMAGES; i++) {
        starts[i] = at;
        at += sprintf(paths + at, "cat/%d.ppm", i) + 1;
    }
    f.half.paths = paths;
    f.half.path_starts = starts;
    f.plan.shuffle = false;
    spoil(&f, 3);
    mm_loader *loader = create(&f, &f.plan);
    mm_loader_start_epoch(loader, 0);
    assert_int_equal(mm_loader_batch(loader, 0, &batch), MM_E_FORMAT);
    if (!strstr(mm_fail_message(), "training image 3 (cat/3.ppm)"))
        fail_msg("%s", mm_fail_message());
    mm_loader_destroy(&loader);
}

static void what_was_read_ahead_can_be_given_up(void **state)
{
    (void)state;
    static fixture f;
    static seen one;
    fill(&f);
    collect(&f, 1, 0, &one);
    f.plan.n_workers = 3;
    mm_loader *loader = create(&f, &f.plan);
    /* Another epoch, the same again, another task, and the end in between. */
    for (int i = 0; i < 20; i++) {
        mm_batch batch;
        int epoch = i % 2;
        mm_loader_start_epoch(loader, epoch);
        for (int step = 0; step < i % N_STEPS; step++) {
            assert_int_equal(mm_loader_batch(loader, step, &batch), MM_OK);
            assert_memory_equal(batch.images,
                                one.images + (epoch * N_IMAGES + step * BATCH) *
                                                 IMAGE_BYTES,
                                (size_t)batch.n_images * IMAGE_BYTES);
        }
        if (i % 5 == 4)
            assert_int_equal(mm_loader_start_task(loader, &f.task, 0, N_EPOCHS),
                             MM_OK);
    }
    mm_loader_start_epoch(loader, 0);
    mm_loader_destroy(&loader);
    assert_null(loader);
}

static void only_encoded_images_get_workers_by_themselves(void **state)
{
    (void)state;
    mm_half raw = {.storage = MM_STORED_PIXELS};
    mm_half files = {.storage = MM_STORED_FILES};
    assert_int_equal(mm_feed_default_workers(&raw, 8), 0);
    assert_int_equal(mm_feed_default_workers(&files, 8), 8);
    assert_int_equal(mm_feed_default_workers(&files, 64), 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_workers_and_ranks_sees_the_same),
        cmocka_unit_test(raw_pixels_are_read_ahead_likewise),
        cmocka_unit_test(skipped_images_are_missing_and_nothing_else_changes),
        cmocka_unit_test(a_batch_may_lose_all_its_images),
        cmocka_unit_test(the_first_bad_image_of_a_batch_is_named),
        cmocka_unit_test(a_packed_image_is_named_with_the_path_it_had),
        cmocka_unit_test(what_was_read_ahead_can_be_given_up),
        cmocka_unit_test(only_encoded_images_get_workers_by_themselves),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
