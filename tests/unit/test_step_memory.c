/* A training step takes no memory: what it needs is laid out before. */
#include "src/input/loader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/step_scene.h"

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

typedef struct scene {
    step_scene base;
    mm_stepper *stepper;
} scene;

static int build_scene(void **state)
{
    scene *s = calloc(1, sizeof *s);
    *state = s;
    step_scene_open(&s->base, "cpu");
    s->base.plan.accumulate = 2;
    s->stepper = step_scene_begin(&s->base, &s->base.plan);
    return 0;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    mm_stepper_destroy(&s->stepper);
    step_scene_close(&s->base);
    free(s);
    return 0;
}

/** One step; the loss of the one before. */
static double step(scene *s)
{
    mm_step_result last;
    ok(mm_stepper_step(s->stepper, &s->base.batch, MM_OK, 1e-3, &last));
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
    assert_int_equal(mm_device_alloc(s->base.device, 100, &on_device), MM_OK);
    mm_device_free(s->base.device, &on_device);
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
    mm_batch whole = s->base.batch;
    step(s);
    long before = atomic_load(&n_ours);
    for (int64_t n = N_IMAGES; n > 0; n--) {
        s->base.batch.n_images = s->base.batch.n_global = n;
        step(s);
    }
    long after = atomic_load(&n_ours);
    s->base.batch = whole;
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
    mm_half half = {.n_images = N,
                    .storage = MM_STORED_BYTES,
                    .bytes = bytes,
                    .offsets = offsets,
                    .labels = labels};
    mm_task task = {.local = local, .n_train = N, .train = train};
    mm_loader_plan plan = {.half = &half,
                           .device = device,
                           .image_size = 16,
                           .batch_size = 5,
                           .n_ranks = 1,
                           .n_workers = n_workers,
                           .n_threads = 1,
                           .shuffle = true};
    mm_loader *loader;
    assert_int_equal(mm_loader_create(&plan, &loader), MM_OK);
    assert_int_equal(mm_loader_start_task(loader, &task, 0, n_epochs), MM_OK);
    long before = atomic_load(&n_ours);
    for (int epoch = 0; epoch < n_epochs; epoch++) {
        mm_loader_start_epoch(loader, epoch);
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
    mm_device *device = ((scene *)*state)->base.device;
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
