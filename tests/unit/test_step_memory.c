/* A training step takes no memory: what it needs is laid out before. */
#include "src/model/params.h"
#include "src/train/loader.h"
#include "src/train/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)

/* The allocator's functions with a count in front. Calls that come from this
 * program's own text are ours; the others are those of libraries. */

void *__libc_malloc(size_t n_bytes);
void *__libc_calloc(size_t n, size_t n_bytes);
void *__libc_realloc(void *memory, size_t n_bytes);
void *__libc_memalign(size_t align, size_t n_bytes);
void __libc_free(void *memory);

extern const char __executable_start, etext;

static atomic_long n_ours, n_live;

/* Called as such, so that the return address is the caller's. */
#define CALLED __attribute__((noipa))

static void *counted(void *memory, const void *caller)
{
    const char *from = caller;
    if (from >= &__executable_start && from < &etext)
        atomic_fetch_add(&n_ours, 1);
    if (memory)
        atomic_fetch_add(&n_live, 1);
    return memory;
}

CALLED void *malloc(size_t n_bytes)
{
    return counted(__libc_malloc(n_bytes), __builtin_return_address(0));
}

CALLED void *calloc(size_t n, size_t n_bytes)
{
    return counted(__libc_calloc(n, n_bytes), __builtin_return_address(0));
}

CALLED void *realloc(void *memory, size_t n_bytes)
{
    if (memory)
        atomic_fetch_sub(&n_live, 1);
    return counted(__libc_realloc(memory, n_bytes),
                   __builtin_return_address(0));
}

CALLED void *aligned_alloc(size_t align, size_t n_bytes)
{
    return counted(__libc_memalign(align, n_bytes),
                   __builtin_return_address(0));
}

CALLED int posix_memalign(void **memory, size_t align, size_t n_bytes)
{
    void *got =
        counted(__libc_memalign(align, n_bytes), __builtin_return_address(0));
    if (!got)
        return 12; /* ENOMEM */
    *memory = got;
    return 0;
}

CALLED void free(void *memory)
{
    if (memory)
        atomic_fetch_sub(&n_live, 1);
    __libc_free(memory);
}

enum { N_IMAGES = 6, N_CLASSES = 3, IMAGE_BYTES = 16 * 16 * 3 };

static const char tiny[] =
    "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 16, \"patch_size\": 4,"
    " \"width\": 32, \"layers\": 3, \"head_width\": 8}}";

typedef struct scene {
    mm_comm *comm;
    mm_device *device;
    mm_model_config config;
    mm_stepper *stepper;
    float *theta;
    float head[N_CLASSES * 8];
    int32_t classes[N_CLASSES];
    uint8_t images[N_IMAGES * IMAGE_BYTES];
    int32_t labels[N_IMAGES];
    mm_batch batch;
} scene;

static void fill(scene *s)
{
    for (int i = 0; i < N_CLASSES * 8; i++)
        s->head[i] = (float)((i * 5) % 7) - 3;
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
}

static mm_status begin(scene *s)
{
    mm_tensor_table table = {0};
    MM_TRY(mm_device_open("cpu", mm_comm_n_threads(s->comm), &s->device));
    MM_TRY(mm_model_config_parse(tiny, "tiny", &s->config));
    MM_TRY(mm_params_table(&s->config, &table));
    s->theta = malloc((size_t)table.n_elems * sizeof *s->theta);
    mm_params_init(&s->config, &table, 1, s->theta);
    mm_tensor_table_clear(&table);
    mm_step_plan plan = {.comm = s->comm,
                         .device = s->device,
                         .config = &s->config,
                         .most_images = N_IMAGES,
                         .most_classes = N_CLASSES,
                         .accumulate = 2,
                         .weight_decay = 0.1,
                         .clip = 1};
    MM_TRY(mm_stepper_create(&plan, &s->stepper));
    mm_head head = {.n_classes = N_CLASSES, .embed_dim = 8, .weight = s->head};
    mm_task task = {.n_classes = N_CLASSES, .classes = s->classes};
    return mm_stepper_begin_task(s->stepper, s->theta, &head, &task);
}

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    *state = s;
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK)
        return 1;
    fill(s);
    return begin(s) != MM_OK;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    mm_stepper_destroy(&s->stepper);
    mm_model_config_clear(&s->config);
    mm_device_close(&s->device);
    mm_comm_destroy(&s->comm);
    free(s->theta);
    free(s);
    return 0;
}

/** One step; the loss of the one before. */
static double step(scene *s)
{
    mm_step_result last;
    if (mm_stepper_step(s->stepper, &s->batch, MM_OK, 1e-3, &last) != MM_OK)
        fail_msg("%s", mm_fail_message());
    return last.loss;
}

static void the_count_sees_our_allocations(void **state)
{
    scene *s = *state;
    long ours = atomic_load(&n_ours);
    void *volatile memory = malloc(100);
    free(memory);
    memory = aligned_alloc(64, 128);
    free(memory);
    assert_int_equal(atomic_load(&n_ours) - ours, 2);
    /* Also those inside the project's library. */
    void *on_device;
    assert_int_equal(mm_device_alloc(s->device, 100, &on_device), MM_OK);
    mm_device_release(s->device, &on_device);
    assert_int_equal(atomic_load(&n_ours) - ours, 3);
}

static void a_step_allocates_nothing_of_ours(void **state)
{
    scene *s = *state;
    step(s);
    step(s);
    long before = atomic_load(&n_ours);
    double first = step(s), last = first;
    for (int i = 0; i < 10; i++)
        last = step(s);
    assert_int_equal(atomic_load(&n_ours) - before, 0);
    assert_true(last < first); /* they were steps */
}

static void a_smaller_batch_allocates_nothing_either(void **state)
{
    scene *s = *state;
    mm_batch whole = s->batch;
    step(s);
    long before = atomic_load(&n_ours);
    for (int64_t n = N_IMAGES; n > 0; n--) {
        s->batch.n_images = s->batch.n_global = n;
        step(s);
    }
    long after = atomic_load(&n_ours);
    s->batch = whole;
    assert_int_equal(after - before, 0);
}

static void steps_leave_nothing_behind_in_libraries(void **state)
{
    enum { STEPS = 50 };
    scene *s = *state;
    for (int i = 0; i < 3; i++)
        step(s);
    long before = atomic_load(&n_live);
    for (int i = 0; i < STEPS; i++)
        step(s);
    /* Threads of the transport may keep a block now and then, not each step. */
    assert_true(atomic_load(&n_live) - before < STEPS);
}

/** Allocations of ours while a loader of 24 encoded images runs. */
static long allocations_of_epochs(mm_device *device, int n_workers,
                                  int n_epochs)
{
    enum { N = 24, SIDE = 20, FILE_BYTES = 13 + SIDE * SIDE * 3 };
    static uint8_t bytes[N * FILE_BYTES];
    int64_t offsets[N + 1], train[N];
    int32_t labels[N] = {0}, local[1] = {0};
    for (int i = 0; i <= N; i++)
        offsets[i] = i * FILE_BYTES;
    for (int i = 0; i < N; i++) {
        memcpy(bytes + offsets[i], "P6\n20 20\n255\n", 13);
        train[i] = i;
    }
    mm_split split = {.n_images = N,
                      .storage = MM_STORED_BYTES,
                      .bytes = bytes,
                      .offsets = offsets,
                      .labels = labels};
    mm_task task = {.local = local, .n_train = N, .train = train};
    mm_loader_plan plan = {.split = &split,
                           .device = device,
                           .image_size = 16,
                           .batch_size = 5,
                           .n_ranks = 1,
                           .n_workers = n_workers,
                           .n_threads = 1,
                           .shuffle = true};
    mm_loader *loader;
    assert_int_equal(mm_loader_create(&plan, &loader), MM_OK);
    assert_int_equal(mm_loader_begin_task(loader, &task, 0, n_epochs), MM_OK);
    long before = atomic_load(&n_ours);
    for (int epoch = 0; epoch < n_epochs; epoch++) {
        mm_loader_begin_epoch(loader, epoch);
        for (int64_t i = 0; i < mm_loader_n_steps(loader); i++) {
            mm_batch batch;
            assert_int_equal(mm_loader_batch(loader, i, &batch), MM_OK);
        }
    }
    long n = atomic_load(&n_ours) - before;
    mm_loader_destroy(&loader);
    return n;
}

static void images_read_ahead_allocate_nothing_once_seen(void **state)
{
    mm_device *device = ((scene *)*state)->device;
    long first = allocations_of_epochs(device, 0, 1);
    assert_in_range(first, 1, 20);
    assert_int_equal(allocations_of_epochs(device, 0, 50), first);
    /* Two workers and the caller, each at its first image. */
    assert_true(allocations_of_epochs(device, 2, 50) <= 3 * first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_count_sees_our_allocations),
        cmocka_unit_test(a_step_allocates_nothing_of_ours),
        cmocka_unit_test(a_smaller_batch_allocates_nothing_either),
        cmocka_unit_test(steps_leave_nothing_behind_in_libraries),
        cmocka_unit_test(images_read_ahead_allocate_nothing_once_seen),
    };
    return cmocka_run_group_tests(tests, build_scene, clear_scene);
}

#else

int main(void)
{
    puts("skipped: this allocator cannot be counted");
    return 77;
}

#endif
