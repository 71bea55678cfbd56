/*
 * Are races noticed, and only those? Kernels that are instrumented make each
 * mistake in a child process.
 */
#include "kernels/cuda/async_copy.cuh"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

namespace
{

enum mistake : unsigned {
    NONE = 0,
    NO_BARRIER = 1,
    NO_WARP_BARRIER = 2,
    NO_BARRIER_AFTER_READING = 4,
    NO_WAITING = 8,
    OTHER_BLOCKS_ELEMENT = 16
};

enum { N_THREADS = 64, N_BLOCKS = 3 };

} // namespace

/* Each thread of a block gets the next one's number, by a copy, through shared
 * memory and through device memory. */
__global__ void round_kernel(float *out, const float *in, unsigned mistakes)
{
    MM_SHARED(float, tile, 4 * N_THREADS);
    MM_SHARED(float, swapped, N_THREADS);
    const int i = (int)threadIdx.x;
    float *mine = out + blockIdx.x * N_THREADS;
    mm_copy_async(tile + 4 * i, in + 4 * i, true);
    mm_commit_copies();
    if (!(mistakes & NO_WAITING))
        mm_wait_copies<0>();
    if (mistakes & NO_BARRIER)
        __syncwarp();
    else
        __syncthreads();
    const float x = tile[4 * (N_THREADS - 1 - i)];
    if (mistakes & NO_WAITING)
        mm_wait_copies<0>();
    swapped[i] = x;
    if (mistakes & NO_WARP_BARRIER)
        (void)mm_warp_sum(x); /* waits for the warp, but orders nothing */
    else
        __syncwarp();
    const float y = swapped[i ^ 1];
    if (!(mistakes & NO_BARRIER_AFTER_READING))
        __syncthreads();
    tile[4 * ((i + 32) % N_THREADS)] = y;
    swapped[i] = y;
    __syncthreads();
    mine[i] = tile[4 * i];
    if ((mistakes & OTHER_BLOCKS_ELEMENT) && i == 0)
        out[(blockIdx.x + 1) % N_BLOCKS * N_THREADS] = 0.0f;
}

/** Run the kernel twice; what was said on stderr. */
static const char *how_it_ended(unsigned mistakes)
{
    static char said[4096];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        std::signal(SIGABRT, SIG_DFL);
        cudaStream_t stream;
        void *in = nullptr, *out = nullptr;
        float host[4 * N_THREADS] = {};
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        cudaMalloc(&in, sizeof host);
        cudaMalloc(&out, N_BLOCKS * N_THREADS * sizeof(float));
        cudaMemcpyAsync(in, host, sizeof host, cudaMemcpyHostToDevice, stream);
        for (int i = 0; i < 2; i++)
            MM_LAUNCH(round_kernel, N_BLOCKS, N_THREADS, 0, stream,
                      static_cast<float *>(out), static_cast<float *>(in),
                      mistakes);
        cudaStreamSynchronize(stream);
        _exit(0);
    }
    close(ends[1]);
    std::size_t n = 0;
    for (ssize_t got; (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0;)
        n += static_cast<std::size_t>(got);
    said[n] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    assert_int_equal(WIFEXITED(status), n == 0);
    return said;
}

static void a_kernel_that_waits_everywhere_passes(void **)
{
    assert_string_equal(how_it_ended(NONE), "");
}

static void each_missing_barrier_is_noticed(void **)
{
    for (unsigned mistake :
         {NO_BARRIER, NO_WARP_BARRIER, NO_BARRIER_AFTER_READING}) {
        const char *said = how_it_ended(mistake);
        assert_non_null(strstr(said, "kernel round_kernel"));
        assert_non_null(strstr(said, "shared memory"));
    }
}

static void a_copy_that_is_under_way_is_noticed(void **)
{
    const char *said = how_it_ended(NO_WAITING);
    assert_non_null(strstr(said, "copying"));
}

static void blocks_that_write_the_same_element_are_noticed(void **)
{
    const char *said = how_it_ended(OTHER_BLOCKS_ELEMENT);
    assert_non_null(strstr(said, "writes device memory"));
    assert_non_null(strstr(said, "another block"));
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_that_waits_everywhere_passes),
        cmocka_unit_test(each_missing_barrier_is_noticed),
        cmocka_unit_test(a_copy_that_is_under_way_is_noticed),
        cmocka_unit_test(blocks_that_write_the_same_element_are_noticed),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
