/*
 * Matrix products of a Vision Transformer's layers: our kernels beside a
 * library, in GFLOP/s, with the fused multiply-add peak for scale. Stands
 * alone; docs/gemm.md has the commands that build it for each library, and what
 * they printed.
 *
 * Define one of MM_BENCH_ONEDNN, MM_BENCH_CBLAS, or neither for our kernels.
 */
#include "bench/peak.h"

#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(MM_BENCH_ONEDNN)
#include <dnnl.h>
#elif defined(MM_BENCH_CBLAS)
#include <cblas.h>
#else
#include "kernels/ops.h"
#endif

enum { REPEATS = 12 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if !defined(MM_BENCH_ONEDNN) && !defined(MM_BENCH_CBLAS)
static mm_device *device;
static mm_stream *stream;
#endif

static int start(void)
{
#if !defined(MM_BENCH_ONEDNN) && !defined(MM_BENCH_CBLAS)
    if (mm_device_open("cpu", omp_get_max_threads(), &device) != MM_OK ||
        mm_stream_create(device, &stream) != MM_OK) {
        fprintf(stderr, "%s\n", mm_fail_message());
        return 1;
    }
#endif
    return 0;
}

/* c = a b, b transposed; a transposed where the flag says so. */
static int product(float *c, const float *a, const float *b, int transpose_a,
                   int m, int n, int k)
{
#if defined(MM_BENCH_ONEDNN)
    return dnnl_sgemm(transpose_a ? 'T' : 'N', 'T', m, n, k, 1.0f, a,
                      transpose_a ? m : k, b, k, 0.0f, c, n) != dnnl_success;
#elif defined(MM_BENCH_CBLAS)
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                CblasTrans, m, n, k, 1.0f, a, transpose_a ? m : k, b, k, 0.0f,
                c, n);
    return 0;
#else
    return mm_device_ops(device)->gemm(stream, c, a, b, transpose_a, true, m, n,
                                       k, 0.0f) != MM_OK;
#endif
}

static float *numbers(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 63) / 64 * 64);
    if (!x)
        abort();
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
    return x;
}

int main(void)
{
    static const struct {
        const char *what;
        int m, n, k, transpose_a;
    } shapes[] = {
        {"ViT-B qkv", 3152, 2304, 768, 0},
        {"ViT-B out", 3152, 768, 768, 0},
        {"ViT-B MLP up", 3152, 3072, 768, 0},
        {"ViT-B MLP down", 3152, 768, 3072, 0},
        {"ViT-B weights", 768, 3072, 3152, 1},
        {"small qkv", 2176, 192, 64, 0},
        {"small MLP down", 2176, 64, 256, 0},
    };
    if (start())
        return 1;
    double peak = peak_gflops(omp_get_max_threads(), 12);
    printf("%-16s %17s %8s\n", "", "m n k", "GFLOP/s");
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int m = shapes[s].m, n = shapes[s].n, k = shapes[s].k;
        float *a = numbers((size_t)m * (size_t)k);
        float *b = numbers((size_t)n * (size_t)k);
        float *c = numbers((size_t)m * (size_t)n);
        double flops = 2.0 * m * n * k, best = 1e9;
        for (int r = 0; r < REPEATS * (flops < 1e9 ? 50 : 1); r++) {
            double begin = now_s();
            if (product(c, a, b, shapes[s].transpose_a, m, n, k))
                return 1;
            double took = now_s() - begin;
            best = took < best ? took : best;
        }
        printf("%-16s %5d %5d %5d %8.1f\n", shapes[s].what, m, n, k,
               flops / best * 1e-9);
        free(a);
        free(b);
        free(c);
    }
    printf("multiply-add peak, %d threads: %.1f\n", omp_get_max_threads(),
           peak);
    return 0;
}
