#ifndef MAGMAX_KERNELS_CUDA_PRODUCT_PLAN_H
#define MAGMAX_KERNELS_CUDA_PRODUCT_PLAN_H

/* How a product is described to cuBLASLt, and which algorithms the library
 * offers for it. For product.c, and for bench/gpu/product_probe.c, which times
 * the algorithms: nothing here needs a stream of ours or mm_fail. */

#include "kernels/cuda/product.h"

#include <cublasLt.h>

/** What an algorithm is chosen for. Numbers of one size, so that keys can be
 * compared as bytes. */
typedef struct mm_product_key {
    int64_t m, n, k;
    int64_t transpose_a, transpose_b, type, out, compute, epilogue, has_addend;
} mm_product_key;

/** Largest powers of two, up to 256, that divide the addresses. */
typedef struct mm_product_alignments {
    int64_t a, b, c, d, vector;
} mm_product_alignments;

/** Once the library has refused a call, `status` and `call` say which. */
typedef struct mm_product_plan {
    mm_product_key key;
    mm_product_alignments alignments;
    cublasStatus_t status;
    const char *call;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} mm_product_plan;

enum { MM_PRODUCT_CHOICES = 8, MM_PRODUCT_ATTRIBUTES = 9 };

/** What identifies an algorithm: the attributes of its configuration,
 * in the order of cublasLtMatmulAlgoConfigAttributes_t. */
typedef struct mm_product_fingerprint {
    int64_t attributes[MM_PRODUCT_ATTRIBUTES];
} mm_product_fingerprint;

int64_t mm_product_alignment(const void *address);

/** How factors of `type` are multiplied in this precision. */
cublasComputeType_t mm_product_compute(cudaDataType_t type,
                                       mm_cuda_precision precision);

/** A plan with its key only. */
mm_product_plan mm_product_plan_of(const mm_cuda_product *p,
                                   cublasComputeType_t compute,
                                   cublasLtEpilogue_t epilogue);
void mm_product_plan_clear(mm_product_plan *plan);

/* These return false where the library refuses. */

/** Make the library's descriptions; once, before anything below. */
bool mm_product_describe(mm_product_plan *plan, const mm_cuda_product *p);

/**
 * The first `most` of the algorithms that the library's heuristic offers for
 * this workspace; of those only that add up parts of k in fp32.
 *
 * Returns  how many; 0 is a refusal.
 */
int mm_product_offers(cublasLtHandle_t handle, mm_product_plan *plan,
                      size_t workspace_bytes, int most,
                      cublasLtMatmulHeuristicResult_t offers[]);

mm_product_fingerprint
mm_product_fingerprint_of(const cublasLtMatmulAlgo_t *algorithm);

/** Enqueue it by plan->algorithm. */
bool mm_product_enqueue(cublasLtHandle_t handle, mm_product_plan *plan,
                        const mm_cuda_product *p, void *workspace,
                        size_t workspace_bytes, cudaStream_t stream);

#endif
