#ifndef MAGMAX_KERNELS_CUDA_VARIANTS_H
#define MAGMAX_KERNELS_CUDA_VARIANTS_H

/* Ways to do the same work of which only a measurement on a GPU can say which
 * is the better one; the other is deleted once that is known. */

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Who adds up the columns of dy for a bias's gradient. */
typedef enum mm_cuda_bias_sums {
    MM_BIAS_SUMS_FUSED,    /* the kernel that writes dy, from what it holds */
    MM_BIAS_SUMS_SEPARATE, /* a kernel behind it, which reads dy again      */
    MM_BIAS_SUMS_LIBRARY   /* cuBLASLt's BGRADB epilogue where it has one   */
} mm_cuda_bias_sums;

typedef struct mm_cuda_variants {
    int bias_sums; /* mm_cuda_bias_sums */
} mm_cuda_variants;

/**
 * Read the environment's MAGMAX_CUDA_VARIANTS, "name=value,name=value"; what
 * it does not name is the table's first value.
 *
 * Errors   MM_E_ARG for an unknown name or value; lists the known ones.
 */
mm_status mm_cuda_variants_read(mm_cuda_variants *variants);

#ifdef __cplusplus
}
#endif

#endif
