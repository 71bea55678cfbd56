#ifndef MAGMAX_BENCH_PEAK_H
#define MAGMAX_BENCH_PEAK_H

#include <omp.h>

/* Enough independent chains of multiply-adds to hide their latency; built with
 * -ffp-contract=fast for AVX2 and FMA, as -march=native mostly is, each step is
 * one instruction. The best of some rounds of about 40 ms. */
static double peak_gflops(int n_threads, int rounds)
{
    typedef float vec __attribute__((vector_size(32)));
    enum { CHAINS = 12, STEPS = 20 << 20 };
    double seconds = 1e9;
    for (int r = 0; r < rounds; r++) {
        double start = omp_get_wtime();
#pragma omp parallel num_threads(n_threads)
        {
            vec sum[CHAINS];
            vec x = {0.999f, 0.998f, 0.997f, 0.996f,
                     0.995f, 0.994f, 0.993f, 0.992f};
            for (int i = 0; i < CHAINS; i++)
                sum[i] = x * (float)(i + 1);
            for (int step = 0; step < STEPS; step++) {
#pragma GCC unroll 12
                for (int i = 0; i < CHAINS; i++)
                    sum[i] = sum[i] * x + x;
            }
            for (int i = 0; i < CHAINS; i++) {
                vec used = sum[i];
                __asm__ volatile("" : : "m"(used));
            }
        }
        double took = omp_get_wtime() - start;
        seconds = took < seconds ? took : seconds;
    }
    return 16.0 * CHAINS * STEPS * n_threads / seconds * 1e-9;
}

#endif
