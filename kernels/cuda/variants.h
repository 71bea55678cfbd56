#ifndef MAGMAX_KERNELS_CUDA_VARIANTS_H
#define MAGMAX_KERNELS_CUDA_VARIANTS_H

/* Ways to do the same work of which only a measurement on a GPU can say which
 * is the better one; the other is deleted once that is known. */

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What adds up the columns of dy for a bias's gradient. */
typedef enum mm_cuda_bias_sums {
    MM_BIAS_SUMS_FUSED,    /* the kernel that writes dy, from what it holds */
    MM_BIAS_SUMS_SEPARATE, /* a kernel behind it, which reads dy again      */
    MM_BIAS_SUMS_LIBRARY   /* cuBLASLt's BGRADB epilogue where it has one   */
} mm_cuda_bias_sums;

/** Which of cuBLASLt's algorithms a product takes. */
typedef enum mm_cuda_algorithms {
    MM_ALGORITHMS_FIRST, /* the heuristic's first choice              */
    MM_ALGORITHMS_TABLE  /* what product_table.h has for it, if any */
} mm_cuda_algorithms;

/** Memory in which products may keep partial sums. */
typedef enum mm_cuda_workspace {
    MM_WORKSPACE_DEFAULT, /* as much as the library takes by default */
    MM_WORKSPACE_32,      /* MiB                                     */
    MM_WORKSPACE_64,
    MM_WORKSPACE_128
} mm_cuda_workspace;

/** The gradient of attention where four warps need two passes over keys that
 * eight hold at once. */
typedef enum mm_cuda_attention_grad_blocks {
    MM_ATTENTION_GRAD_TWO_BLOCKS, /* of four warps, on a multiprocessor */
    MM_ATTENTION_GRAD_ONE_PASS    /* one of eight warps */
} mm_cuda_attention_grad_blocks;

typedef struct mm_cuda_variants {
    int bias_sums;      /* mm_cuda_bias_sums  */
    int algorithms;     /* mm_cuda_algorithms */
    int workspace;      /* mm_cuda_workspace  */
    int attention_grad; /* mm_cuda_attention_grad_blocks */
} mm_cuda_variants;

/**
 * Read the environment's MAGMAX_CUDA_VARIANTS, "name=value,name=value"; what
 * it does not name is the table's first value.
 *
 * Errors   MM_E_ARG for an unknown name or value; lists the known ones.
 */
mm_status mm_cuda_variants_read(mm_cuda_variants *variants);

/** What was read, for the description of a device; "" where nothing is set. */
const char *mm_cuda_variants_text(void);

#ifdef __cplusplus
}
#endif

#endif
