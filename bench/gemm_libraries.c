/*
 * Matrix products of a Vision Transformer's layers in one library, in GFLOP/s,
 * with the multiply-add peak for scale. Stands alone; docs/gemm.md has the
 * commands that build it for each library, and what they printed.
 *
 * MM_BENCH_ONEDNN: oneDNN; without it, whatever has cblas.h.
 */
#include "bench/peak.h"

#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(MM_BENCH_ONEDNN)
#include <dnnl.h>
#else
#include <cblas.h>
#endif

enum { REPEATS = 12 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* c = a b', or c = a' b for the gradient of weights. */
static int product(float *c, const float *a, const float *b, int gradient,
                   int m, int n, int k)
{
    int lda = gradient ? m : k, ldb = gradient ? n : k;
#if defined(MM_BENCH_ONEDNN)
    return dnnl_sgemm(gradient ? 'T' : 'N', gradient ? 'N' : 'T', m, n, k, 1.0f,
                      a, lda, b, ldb, 0.0f, c, n) != dnnl_success;
#else
    cblas_sgemm(CblasRowMajor, gradient ? CblasTrans : CblasNoTrans,
                gradient ? CblasNoTrans : CblasTrans, m, n, k, 1.0f, a, lda, b,
                ldb, 0.0f, c, n);
    return 0;
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
        int m, n, k, gradient;
    } shapes[] = {
        {"ViT-B qkv", 3152, 2304, 768, 0},
        {"ViT-B out", 3152, 768, 768, 0},
        {"ViT-B MLP up", 3152, 3072, 768, 0},
        {"ViT-B MLP down", 3152, 768, 3072, 0},
        {"ViT-B weights", 3072, 768, 3152, 1},
        {"small qkv", 2176, 192, 64, 0},
        {"small MLP up", 2176, 256, 64, 0},
        {"small MLP down", 2176, 64, 256, 0},
        {"small weights", 256, 64, 2176, 1},
    };
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
            if (product(c, a, b, shapes[s].gradient, m, n, k))
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
