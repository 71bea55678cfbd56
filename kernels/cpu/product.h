#ifndef MAGMAX_KERNELS_CPU_PRODUCT_H
#define MAGMAX_KERNELS_CPU_PRODUCT_H

#include "kernels/cpu/cpu.h"

/** What becomes of each sum before it is stored. */
typedef enum mm_cpu_epilogue {
    MM_CPU_PLAIN,
    MM_CPU_ACTIVATE,       /* pre = sum, c = activation(sum)        */
    MM_CPU_ACTIVATION_GRAD /* c = sum * activation'(pre)            */
} mm_cpu_epilogue;

/**
 * c = epilogue(a b + bias + addend), or c += a b.
 *
 * Shapes   c, addend, pre [m,n]; a(i,k) = a[i*a_row + k*a_k], b(k,j) =
 *          b[k*b_k + j*b_col], of each pair of strides one is 1; bias [n];
 *          a_sums [m], sums of a over k.
 * Memory   NULL for what is not wanted. c may be addend, but not pre.
 */
typedef struct mm_cpu_product {
    int64_t m, n, k;
    const float *a, *b;
    int64_t a_row, a_k, b_k, b_col;
    float *c;
    bool accumulate; /* into c, and into a_sums */
    const float *bias, *addend;
    float *a_sums;
    mm_cpu_epilogue epilogue;
    mm_activation activation;
    float *pre;
} mm_cpu_product;

/**
 * Compute it, on all of the stream's threads.
 *
 * Errors   MM_E_DEVICE when the library refuses; the arguments are checked by
 *          the ops.
 */
mm_status MM_CPU(product)(mm_stream *stream, const mm_cpu_product *product);

#endif
