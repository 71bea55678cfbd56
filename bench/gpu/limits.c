/*
 * What the card can do, by the vendor's own means: copies, and square products
 * by the best of cuBLASLt's algorithms, on random numbers.
 *
 *   gpu_limits [--quick]
 *
 * Prints one JSON object per line. Bytes of a copy on the device count twice,
 * read and written. Medians of samples, host clock around many calls.
 */
#include "bench/median.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { N_SAMPLES = 7, MOST_ALGORITHMS = 8 };

static const size_t workspace_bytes = (size_t)32 << 20;

#define CUDA(call) check((int)(call), #call, __LINE__)

static void check(int status, const char *call, int line)
{
    if (status == 0)
        return;
    fprintf(stderr, "gpu_limits: %.*s: status %d (line %d)\n",
            (int)strcspn(call, "("), call, status, line);
    exit(1);
}

static double clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/** Work that can be enqueued again and again. */
typedef struct work {
    void (*enqueue)(const struct work *work, cudaStream_t stream);
    void *to;
    const void *from;
    size_t n_bytes;
    enum cudaMemcpyKind kind;
    struct product *product;
} work;

static double seconds_of(const work *w, cudaStream_t stream, bool quick)
{
    double samples[N_SAMPLES];
    int n_samples = quick ? 1 : N_SAMPLES, n_calls = 1;
    for (int i = -2; i < n_samples; i++) { /* two warm up */
        double begin_s = clock_s();
        for (int k = 0; k < n_calls; k++)
            w->enqueue(w, stream);
        CUDA(cudaStreamSynchronize(stream));
        double call_s = (clock_s() - begin_s) / n_calls;
        if (i >= 0)
            samples[i] = call_s;
        else if (!quick && call_s < 0.05)
            n_calls = (int)(0.05 / call_s) + 1;
    }
    return median(samples, n_samples);
}

/* ---- copies ------------------------------------------------------------- */

static void enqueue_copy(const work *w, cudaStream_t stream)
{
    CUDA(cudaMemcpyAsync(w->to, w->from, w->n_bytes, w->kind, stream));
}

static void measure_copies(cudaStream_t stream, size_t n_bytes, bool quick)
{
    void *a, *b, *host;
    CUDA(cudaMalloc(&a, n_bytes));
    CUDA(cudaMalloc(&b, n_bytes));
    CUDA(cudaHostAlloc(&host, n_bytes, 0));
    memset(host, 0x5A, n_bytes);
    CUDA(cudaMemcpyAsync(a, host, n_bytes, cudaMemcpyHostToDevice, stream));
    const struct {
        const char *name;
        work work;
        double passes;
    } copies[] = {
        {"copy",
         {enqueue_copy, b, a, n_bytes, cudaMemcpyDeviceToDevice, NULL},
         2},
        {"copy to device",
         {enqueue_copy, a, host, n_bytes, cudaMemcpyHostToDevice, NULL},
         1},
        {"copy to host",
         {enqueue_copy, host, a, n_bytes, cudaMemcpyDeviceToHost, NULL},
         1},
    };
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++) {
        double s = seconds_of(&copies[i].work, stream, quick);
        printf("{\"limit\": \"%s\", \"bytes\": %zu, \"seconds\": %.4g, "
               "\"gb_per_s\": %.5g}\n",
               copies[i].name, n_bytes, s,
               copies[i].passes * (double)n_bytes / s * 1e-9);
    }
    CUDA(cudaFree(a));
    CUDA(cudaFree(b));
    CUDA(cudaFreeHost(host));
}

/* ---- products ----------------------------------------------------------- */

typedef struct product {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t layout, out_layout;
    cublasLtMatmulAlgo_t algorithm;
    void *a, *b, *c, *workspace;
} product;

static void enqueue_product(const work *w, cudaStream_t stream)
{
    const product *p = w->product;
    const float one = 1, zero = 0;
    CUDA(cublasLtMatmul(p->handle, p->desc, &one, p->a, p->layout, p->b,
                        p->layout, &zero, p->c, p->out_layout, p->c,
                        p->out_layout, &p->algorithm, p->workspace,
                        workspace_bytes, stream));
}

/** Random numbers in [-1, 1): of zeros, products run faster. */
static void *random_matrix(int64_t n_elems, bool is_bf16, cudaStream_t stream)
{
    size_t n_bytes = (size_t)n_elems * (is_bf16 ? 2 : 4);
    void *memory, *host;
    uint64_t state = 7;
    CUDA(cudaMalloc(&memory, n_bytes));
    CUDA(cudaHostAlloc(&host, n_bytes, 0));
    for (int64_t i = 0; i < n_elems; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float value = (float)((double)(state >> 40) * 0x1p-23 - 1);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (is_bf16)
            ((uint16_t *)host)[i] = (uint16_t)(bits >> 16);
        else
            ((float *)host)[i] = value;
    }
    CUDA(
        cudaMemcpyAsync(memory, host, n_bytes, cudaMemcpyHostToDevice, stream));
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaFreeHost(host));
    return memory;
}

/** The library's candidates; how many. */
static int find_algorithms(const product *p,
                           cublasLtMatmulHeuristicResult_t found[])
{
    cublasLtMatmulPreference_t preference;
    int n = 0;
    CUDA(cublasLtMatmulPreferenceCreate(&preference));
    CUDA(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
        sizeof workspace_bytes));
    CUDA(cublasLtMatmulAlgoGetHeuristic(
        p->handle, p->desc, p->layout, p->layout, p->out_layout, p->out_layout,
        preference, MOST_ALGORITHMS, found, &n));
    CUDA(cublasLtMatmulPreferenceDestroy(preference));
    return n;
}

static void measure_product(const char *precision, int64_t n,
                            cudaStream_t stream, bool quick)
{
    const bool is_bf16 = !strcmp(precision, "bf16");
    const cudaDataType_t type = is_bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t transpose = CUBLAS_OP_T;
    cublasLtMatmulHeuristicResult_t found[MOST_ALGORITHMS];
    product p;
    CUDA(cublasLtCreate(&p.handle));
    CUDA(cublasLtMatmulDescCreate(&p.desc,
                                  strcmp(precision, "tf32") == 0
                                      ? CUBLAS_COMPUTE_32F_FAST_TF32
                                      : CUBLAS_COMPUTE_32F,
                                  CUDA_R_32F));
    CUDA(cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_TRANSA,
                                        &transpose, sizeof transpose));
    CUDA(cublasLtMatrixLayoutCreate(&p.layout, type, (uint64_t)n, (uint64_t)n,
                                    n));
    CUDA(cublasLtMatrixLayoutCreate(&p.out_layout, type, (uint64_t)n,
                                    (uint64_t)n, n));
    p.a = random_matrix(n * n, is_bf16, stream);
    p.b = random_matrix(n * n, is_bf16, stream);
    CUDA(cudaMalloc(&p.c, (size_t)(n * n) * (is_bf16 ? 2 : 4)));
    CUDA(cudaMalloc(&p.workspace, workspace_bytes));
    double best_s = 0;
    int n_found = find_algorithms(&p, found);
    for (int i = 0; i < n_found; i++) {
        const work w = {.enqueue = enqueue_product, .product = &p};
        p.algorithm = found[i].algo;
        double s = seconds_of(&w, stream, quick);
        best_s = best_s == 0 || s < best_s ? s : best_s;
    }
    if (n_found > 0)
        printf("{\"limit\": \"%s product\", \"n\": %lld, \"seconds\": %.4g, "
               "\"tflop_per_s\": %.4g}\n",
               precision, (long long)n, best_s,
               2 * (double)n * (double)n * (double)n / best_s * 1e-12);
    CUDA(cudaFree(p.a));
    CUDA(cudaFree(p.b));
    CUDA(cudaFree(p.c));
    CUDA(cudaFree(p.workspace));
    CUDA(cublasLtMatrixLayoutDestroy(p.layout));
    CUDA(cublasLtMatrixLayoutDestroy(p.out_layout));
    CUDA(cublasLtMatmulDescDestroy(p.desc));
    CUDA(cublasLtDestroy(p.handle));
}

int main(int argc, char **argv)
{
    const bool quick = argc > 1 && !strcmp(argv[1], "--quick");
    if (argc > 2 || (argc == 2 && !quick)) {
        fprintf(stderr, "usage: gpu_limits [--quick]\n");
        return 2;
    }
    cudaStream_t stream;
    CUDA(cudaSetDevice(0));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    measure_copies(stream, (size_t)1 << (quick ? 20 : 30), quick);
    measure_product("bf16", quick ? 64 : 8192, stream, quick);
    measure_product("tf32", quick ? 64 : 8192, stream, quick);
    measure_product("fp32", quick ? 64 : 4096, stream, quick);
    CUDA(cudaStreamDestroy(stream));
    return 0;
}
