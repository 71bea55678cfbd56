/*
 * Does the emulation notice what it is there for? Each mistake is made in a
 * child process, which must end the way that the mistake should.
 */
#include "kernels/cuda/async_copy.cuh"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

namespace
{

cudaStream_t stream;

float *device_floats(int n)
{
    void *memory = nullptr;
    assert_int_equal(cudaMalloc(&memory, n * sizeof(float)), cudaSuccess);
    return static_cast<float *>(memory);
}

float fetch(const float *from)
{
    float x = 0.0f;
    cudaMemcpyAsync(&x, from, sizeof x, cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    return x;
}

/** Run it in a child; what it said on stderr, NULL if it ended well. */
const char *how_it_failed(void (*mistake)())
{
    static char said[4096];
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipe_ends[1], 2);
        std::signal(SIGSEGV, SIG_DFL);
        std::signal(SIGABRT, SIG_DFL);
        mistake();
        _exit(0);
    }
    close(pipe_ends[1]);
    std::size_t n = 0;
    for (ssize_t got;
         (got = read(pipe_ends[0], said + n, sizeof said - 1 - n)) > 0;)
        n += static_cast<std::size_t>(got);
    said[n] = '\0';
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? nullptr : said;
}

} // namespace

__global__ void store_at_kernel(float *x, int64_t at)
{
    if (threadIdx.x == 0)
        x[at] = 1.0f;
}

static void store_past_the_end()
{
    MM_LAUNCH(store_at_kernel, 1, 32, 0, stream, device_floats(100), 128);
    cudaStreamSynchronize(stream);
}

static void store_just_past_the_end()
{
    float *x = device_floats(100);
    MM_LAUNCH(store_at_kernel, 1, 32, 0, stream, x, 100);
    cudaStreamSynchronize(stream);
    cudaFree(x);
}

static void a_store_past_an_allocation_is_caught(void **)
{
    const char *said = how_it_failed(store_past_the_end);
    assert_non_null(said);
    assert_non_null(strstr(said, "store_at_kernel"));
    assert_non_null(strstr(said, "block (0, 0, 0), thread (0, 0, 0)"));
    assert_non_null(how_it_failed(store_just_past_the_end));
}

static void follow_a_device_pointer()
{
    *device_floats(4) = 1.0f;
}

static void a_host_that_follows_a_device_pointer_is_caught(void **)
{
    assert_non_null(how_it_failed(follow_a_device_pointer));
}

__global__ void half_of_a_barrier_kernel()
{
    if (threadIdx.x < 32)
        __syncthreads();
}

static void leave_threads_behind()
{
    MM_LAUNCH(half_of_a_barrier_kernel, 1, 64, 0, stream);
    cudaStreamSynchronize(stream);
}

__global__ void two_barriers_kernel()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

static void part_at_barriers()
{
    MM_LAUNCH(two_barriers_kernel, 1, 64, 0, stream);
    cudaStreamSynchronize(stream);
}

__global__ void half_of_a_shuffle_kernel(float *x)
{
    if (threadIdx.x < 16)
        *x = __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 1);
}

static void shuffle_half_warp()
{
    MM_LAUNCH(half_of_a_shuffle_kernel, 1, 32, 0, stream, device_floats(1));
    cudaStreamSynchronize(stream);
}

static void diverging_threads_are_caught_with_the_kernels_name(void **)
{
    const char *said = how_it_failed(leave_threads_behind);
    assert_non_null(said);
    assert_non_null(strstr(said, "half_of_a_barrier_kernel"));
    said = how_it_failed(part_at_barriers);
    assert_non_null(said);
    assert_non_null(strstr(said, "two_barriers_kernel"));
    said = how_it_failed(shuffle_half_warp);
    assert_non_null(said);
    assert_non_null(strstr(said, "half_of_a_shuffle_kernel"));
}

__global__ void overrun_kernel(float *out)
{
    MM_SHARED(float, tile, 33);
    tile[threadIdx.x + 2] = 1.0f;
    __syncthreads();
    *out = tile[2];
}

static void overrun_shared_memory()
{
    MM_LAUNCH(overrun_kernel, 1, 32, 0, stream, device_floats(1));
    cudaStreamSynchronize(stream);
}

static void a_store_past_shared_memory_is_caught(void **)
{
    assert_non_null(how_it_failed(overrun_shared_memory));
}

/* Thread 0 passes a number to the last thread, and back, without waiting. */
__global__ void no_barrier_kernel(float *out)
{
    MM_SHARED(float, passed, 64);
    passed[threadIdx.x] = (float)threadIdx.x;
    if (threadIdx.x == 0)
        out[2 * blockIdx.x] = passed[63];
    if (threadIdx.x == 63)
        out[2 * blockIdx.x + 1] = passed[0];
}

static void a_missing_barrier_shows_in_some_block(void **)
{
    float *out = device_floats(4);
    int n_wrong = 0;
    MM_LAUNCH(no_barrier_kernel, 2, 64, 0, stream, out);
    for (int i = 0; i < 4; i++)
        n_wrong += fetch(out + i) != (i % 2 ? 0.0f : 63.0f);
    assert_int_equal(n_wrong, 2);
    cudaFree(out);
}

__global__ void copy_kernel(float *out, const float *in, bool wait)
{
    MM_SHARED(float, tile, 4 * MM_WARP);
    float *mine = tile + 4 * threadIdx.x;
    mm_copy_async(mine, in, threadIdx.x % 2 == 0);
    mm_commit_copies();
    if (wait)
        mm_wait_copies<0>();
    out[threadIdx.x] = mine[3];
    mm_wait_copies<0>();
}

static void a_copy_that_is_not_waited_for_shows(void **)
{
    float *in = device_floats(4), *out = device_floats(MM_WARP);
    const float four[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    cudaMemcpyAsync(in, four, sizeof four, cudaMemcpyHostToDevice, stream);
    MM_LAUNCH(copy_kernel, 1, MM_WARP, 0, stream, out, in, true);
    for (int i = 0; i < MM_WARP; i++)
        assert_true(fetch(out + i) == (i % 2 ? 0.0f : 4.0f));
    MM_LAUNCH(copy_kernel, 1, MM_WARP, 0, stream, out, in, false);
    for (int i = 0; i < MM_WARP; i++) {
        const float got = fetch(out + i);
        assert_true(got != got);
    }
    cudaFree(in);
    cudaFree(out);
}

/* Waits for the older of two groups and reads the younger. */
__global__ void two_copies_kernel(float *out, const float *in)
{
    MM_SHARED(float, tile, 8 * MM_WARP);
    float *mine = tile + 8 * threadIdx.x;
    mm_copy_async(mine, in, true);
    mm_commit_copies();
    mm_copy_async(mine + 4, in, true);
    mm_commit_copies();
    mm_wait_copies<1>();
    if (threadIdx.x == 0) {
        out[0] = mine[0];
        out[1] = mine[4];
    }
    mm_wait_copies<0>();
}

static void groups_of_copies_are_waited_for_in_order(void **)
{
    float *in = device_floats(4), *out = device_floats(2);
    const float four[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    cudaMemcpyAsync(in, four, sizeof four, cudaMemcpyHostToDevice, stream);
    MM_LAUNCH(two_copies_kernel, 1, MM_WARP, 0, stream, out, in);
    assert_true(fetch(out) == 1.0f);
    const float got = fetch(out + 1);
    assert_true(got != got);
    cudaFree(in);
    cudaFree(out);
}

__global__ void leave_copying_kernel(const float *in, int shift)
{
    MM_SHARED(float, tile, 8 * MM_WARP);
    mm_copy_async(tile + 4 * threadIdx.x + shift, in, true);
    mm_commit_copies();
}

static void end_while_copying()
{
    MM_LAUNCH(leave_copying_kernel, 1, MM_WARP, 0, stream, device_floats(4), 0);
    cudaStreamSynchronize(stream);
}

static void copy_to_odd_places()
{
    MM_LAUNCH(leave_copying_kernel, 1, MM_WARP, 0, stream, device_floats(4), 1);
    cudaStreamSynchronize(stream);
}

static void copies_that_are_left_or_not_aligned_are_caught(void **)
{
    const char *said = how_it_failed(end_while_copying);
    assert_non_null(said);
    assert_non_null(strstr(said, "ends while it copies"));
    said = how_it_failed(copy_to_odd_places);
    assert_non_null(said);
    assert_non_null(strstr(said, "not aligned"));
}

static void memory_starts_as_nan(void **)
{
    float *x = device_floats(1);
    const float got = fetch(x);
    assert_true(got != got);
    cudaFree(x);
}

enum { ROUNDS = 40 };

static void results_are_there_only_after_waiting(void **)
{
    float *x = device_floats(1);
    int n_early = 0;
    for (int round = 0; round < ROUNDS; round++) {
        float got = 5.0f;
        MM_LAUNCH(store_at_kernel, 1, 32, 0, stream, x, 0);
        cudaMemcpyAsync(&got, x, sizeof got, cudaMemcpyDeviceToHost, stream);
        n_early += got == 1.0f;
        cudaStreamSynchronize(stream);
        assert_true(got == 1.0f);
    }
    assert_in_range(n_early, 0, ROUNDS / 2);
    cudaFree(x);
}

/* Copies of the same numbers again and again: only while one is under way are
 * they not there. How often a reader in another stream met that. */
static int count_copies_under_way(bool reader_waits)
{
    cudaStream_t copies;
    cudaEvent_t event;
    cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    float *x = device_floats(1), three = 3.0f;
    cudaMemcpyAsync(x, &three, sizeof *x, cudaMemcpyHostToDevice, stream);
    int n_wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        cudaStreamSynchronize(stream);
        cudaMemcpyAsync(x, &three, sizeof *x, cudaMemcpyHostToDevice, copies);
        cudaEventRecord(event, copies);
        if (reader_waits)
            cudaStreamWaitEvent(stream, event, 0);
        n_wrong += fetch(x) != 3.0f;
        cudaStreamSynchronize(copies);
    }
    cudaEventDestroy(event);
    cudaStreamDestroy(copies);
    cudaFree(x);
    return n_wrong;
}

static void a_reader_of_what_is_being_copied_gets_wrong_numbers(void **)
{
    assert_int_equal(count_copies_under_way(true), 0);
    assert_int_not_equal(count_copies_under_way(false), 0);
}

static void an_event_is_past_only_after_a_while(void **)
{
    cudaEvent_t event;
    float *x = device_floats(1);
    int n_not_ready = 0;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    for (int round = 0; round < ROUNDS; round++) {
        MM_LAUNCH(store_at_kernel, 1, 32, 0, stream, x, 0);
        cudaEventRecord(event, stream);
        while (cudaEventQuery(event) == cudaErrorNotReady)
            n_not_ready++;
    }
    assert_int_not_equal(n_not_ready, 0);
    cudaEventDestroy(event);
    cudaFree(x);
}

__global__ void increase_kernel(float *to, const float *from)
{
    if (threadIdx.x == 0)
        *to = *from + 1.0f;
}

/* Rounds of: `stream` increases *x, `other` makes *y of it, `stream` reads *y.
 * How many rounds were wrong, when some of the waiting is left out. */
static int count_wrong_rounds(bool other_waits, bool reader_waits)
{
    cudaStream_t other;
    cudaEvent_t event;
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    float *x = device_floats(1), *y = device_floats(1);
    float zero = 0.0f;
    cudaMemcpyAsync(x, &zero, sizeof zero, cudaMemcpyHostToDevice, stream);
    cudaMemcpyAsync(y, &zero, sizeof zero, cudaMemcpyHostToDevice, stream);
    cudaStreamSynchronize(stream);
    int n_wrong = 0;
    for (int round = 1; round <= ROUNDS; round++) {
        MM_LAUNCH(increase_kernel, 1, 32, 0, stream, x, x);
        cudaEventRecord(event, stream);
        if (other_waits)
            cudaStreamWaitEvent(other, event, 0);
        MM_LAUNCH(increase_kernel, 1, 32, 0, other, y, x);
        cudaEventRecord(event, other);
        if (reader_waits)
            cudaStreamWaitEvent(stream, event, 0);
        n_wrong += fetch(y) != static_cast<float>(round + 1);
        cudaStreamSynchronize(other);
    }
    cudaEventDestroy(event);
    cudaStreamDestroy(other);
    cudaFree(x);
    cudaFree(y);
    return n_wrong;
}

static void a_missing_wait_between_streams_shows(void **)
{
    assert_int_equal(count_wrong_rounds(true, true), 0);
    assert_int_not_equal(count_wrong_rounds(false, true), 0);
    assert_int_not_equal(count_wrong_rounds(true, false), 0);
}

static void
a_host_that_changes_pinned_memory_too_early_gets_wrong_numbers(void **)
{
    void *pinned = nullptr;
    float *x = device_floats(1);
    assert_int_equal(cudaHostAlloc(&pinned, sizeof *x, cudaHostAllocDefault),
                     cudaSuccess);
    float *from = static_cast<float *>(pinned);
    int n_wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        *from = 1.0f;
        cudaMemcpyAsync(x, from, sizeof *x, cudaMemcpyHostToDevice, stream);
        *from = 2.0f;
        n_wrong += fetch(x) == 2.0f;
    }
    assert_in_range(n_wrong, ROUNDS / 2, ROUNDS);
    cudaFreeHost(pinned);
    cudaFree(x);
}

static void free_what_is_not_pinned()
{
    static float x;
    cudaFreeHost(&x);
}

static void freeing_what_is_not_pinned_is_caught(void **)
{
    assert_non_null(how_it_failed(free_what_is_not_pinned));
}

static void launches_that_a_gpu_refuses_are_refused(void **)
{
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    MM_LAUNCH(two_barriers_kernel, 1, 2048, 0, stream);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    MM_LAUNCH(two_barriers_kernel, 1, 64, 64 << 10, stream);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    MM_LAUNCH(two_barriers_kernel, dim3(1, 70000), 64, 0, stream);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

int main()
{
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                     cudaSuccess);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_past_an_allocation_is_caught),
        cmocka_unit_test(a_host_that_follows_a_device_pointer_is_caught),
        cmocka_unit_test(diverging_threads_are_caught_with_the_kernels_name),
        cmocka_unit_test(a_store_past_shared_memory_is_caught),
        cmocka_unit_test(a_missing_barrier_shows_in_some_block),
        cmocka_unit_test(a_copy_that_is_not_waited_for_shows),
        cmocka_unit_test(groups_of_copies_are_waited_for_in_order),
        cmocka_unit_test(copies_that_are_left_or_not_aligned_are_caught),
        cmocka_unit_test(memory_starts_as_nan),
        cmocka_unit_test(results_are_there_only_after_waiting),
        cmocka_unit_test(a_reader_of_what_is_being_copied_gets_wrong_numbers),
        cmocka_unit_test(an_event_is_past_only_after_a_while),
        cmocka_unit_test(a_missing_wait_between_streams_shows),
        cmocka_unit_test(
            a_host_that_changes_pinned_memory_too_early_gets_wrong_numbers),
        cmocka_unit_test(freeing_what_is_not_pinned_is_caught),
        cmocka_unit_test(launches_that_a_gpu_refuses_are_refused),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
