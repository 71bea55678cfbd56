/*
 * Kernels with one mistake each, for compute-sanitizer to find: a tool that has
 * never found anything may not be looking.
 *
 *   gpu_planted memcheck|racecheck|initcheck
 */
#include <cstdio>
#include <cstring>
#include <cuda_runtime.h>

enum { THREADS = 64 };

__global__ void mm_planted_overrun_kernel(float *x, int n)
{
    x[n + threadIdx.x] = 1.0f;
}

__global__ void mm_planted_race_kernel(float *x)
{
    __shared__ float shared[THREADS];
    shared[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = shared[(threadIdx.x + THREADS / 2) % THREADS];
}

__global__ void mm_planted_read_kernel(float *y, const float *x)
{
    if (x[threadIdx.x] > 0.0f)
        y[threadIdx.x] = 1.0f;
}

int main(int argc, char **argv)
{
    const char *tool = argc == 2 ? argv[1] : "";
    float *x = nullptr, *y = nullptr;
    if (cudaMalloc(&x, THREADS * sizeof *x) != cudaSuccess ||
        cudaMalloc(&y, THREADS * sizeof *y) != cudaSuccess ||
        cudaMemset(y, 0, THREADS * sizeof *y) != cudaSuccess) {
        std::fprintf(stderr, "gpu_planted: %s\n",
                     cudaGetErrorString(cudaGetLastError()));
        return 1;
    }
    if (!std::strcmp(tool, "memcheck"))
        mm_planted_overrun_kernel<<<1, THREADS>>>(x, THREADS);
    else if (!std::strcmp(tool, "racecheck"))
        mm_planted_race_kernel<<<1, THREADS>>>(y);
    else if (!std::strcmp(tool, "initcheck"))
        mm_planted_read_kernel<<<1, THREADS>>>(y, x);
    else
        return 2;
    /* What comes of the mistake is the sanitizer's to say. */
    (void)cudaDeviceSynchronize();
    cudaFree(x);
    cudaFree(y);
    return 0;
}
