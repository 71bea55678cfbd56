#ifndef MAGMAX_KERNELS_CPU_PRODUCT_H
#define MAGMAX_KERNELS_CPU_PRODUCT_H

#include "kernels/cpu/tile.h"

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
 * Memory   NULL for what is not wanted. c may be addend, and pre in
 *          MM_CPU_ACTIVATION_GRAD.
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

/** Largest k of MM_CPU_ACTIVATION_GRAD. */
enum { MM_CPU_MAX_GRAD_K = MM_CPU_PACKED_ELEMS / MM_TILE_COLS };

/**
 * Compute it.
 *
 * The sum of each element runs over k in blocks of a fixed size, so it depends
 * neither on the number of threads nor on how m and n are divided.
 *
 * Errors   None; the arguments are checked by the ops.
 */
void MM_CPU(product)(mm_stream *stream, const mm_cpu_product *product);

#endif
