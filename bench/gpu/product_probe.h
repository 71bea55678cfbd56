#ifndef MAGMAX_BENCH_GPU_PRODUCT_PROBE_H
#define MAGMAX_BENCH_GPU_PRODUCT_PROBE_H

/* What product_probe times: the products of a training step. */

#include "kernels/cuda/product_plan.h"
#include "src/model/config.h"

/** `product` has its shape, and stands for what it will point at by pointers
 * that are NULL or not. */
typedef struct probe_case {
    const char *model;
    int64_t batch;
    const char *layer, *pass;
    mm_cuda_product product;
    cublasLtEpilogue_t epilogue;
    bool in_use;   /* by the default variants, where nothing is refused */
    int64_t calls; /* of a training step */
} probe_case;

enum { MOST_PROBE_CASES = 32 };

/** Those of a model; how many, MOST_PROBE_CASES at most. */
int probe_cases(const char *model, const mm_model_config *config, int64_t batch,
                probe_case cases[]);

double probe_flop(const probe_case *c);

#endif
