#ifndef MAGMAX_KERNELS_CUDA_PRODUCT_H
#define MAGMAX_KERNELS_CUDA_PRODUCT_H

#include "kernels/cuda/cuda.h"

#include <library_types.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * c = op(a) op(b) + bias + addend, on cuBLASLt.
 *
 * Shapes   row-major: c, addend [m,n]; a [m,k], or [k,m] when transpose_a; b
 *          [k,n], or [n,k] when transpose_b; bias [n]; a_sums [m], sums of
 *          op(a) over k, where c is fp32.
 * Memory   NULL for what is not wanted. c may be addend.
 */
typedef struct mm_cuda_product {
    int64_t m, n, k;
    const void *a, *b;
    bool transpose_a, transpose_b;
    cudaDataType_t type; /* of a and b: CUDA_R_32F or CUDA_R_16BF */
    cudaDataType_t out;  /* of c, addend and bias */
    void *c;
    const void *addend;
    const void *bias;
    float *a_sums;
    bool accumulate_sums;
} mm_cuda_product;

/** The library's name for the type of the stream's activations. */
static inline cudaDataType_t mm_cuda_act_type(const mm_stream *stream)
{
    return stream->device->act_bytes == 2 ? CUDA_R_16BF : CUDA_R_32F;
}

/**
 * Enqueue it.
 *
 * Errors   MM_E_DEVICE when the library refuses; the arguments are checked by
 *          the ops.
 */
mm_status mm_cuda_multiply(mm_stream *stream, const mm_cuda_product *product);

/** The library's handle, its workspace, the algorithm for each shape so far. */
mm_status mm_cuda_products_create(int64_t workspace_bytes,
                                  mm_cuda_products **products);
void mm_cuda_products_destroy(mm_cuda_products **products);

/* ---- kernels beside the products ---------------------------------------- */

/** c = bias + addend of `type`, either NULL. Shapes: c, addend [m,n]; bias
 * [n]. */
mm_status mm_cuda_add_bias(mm_stream *stream, cudaDataType_t type, void *c,
                           const void *bias, const void *addend, int64_t m,
                           int64_t n);

/** y = activation(x); y may be x. */
mm_status mm_cuda_activate(mm_stream *stream, mm_act *y, const mm_act *x,
                           mm_activation activation, int64_t n_elems);

/** dx *= activation'(x). */
mm_status mm_cuda_activate_grad(mm_stream *stream, mm_act *dx, const mm_act *x,
                                mm_activation activation, int64_t n_elems);

/** sums = column sums of x of `type`, added to what is there when `accumulate`.
 * Shapes: sums [width]; x: n_rows rows of `width`, x_stride apart. */
mm_status mm_cuda_column_sums(mm_stream *stream, cudaDataType_t type,
                              float *sums, const void *x, int64_t x_stride,
                              bool accumulate, int64_t n_rows, int64_t width);

/** Column sums of activations, the gradient of a bias; nothing where dbias is
 * NULL. */
mm_status mm_cuda_bias_grad(mm_stream *stream, float *dbias, const mm_act *dy,
                            int64_t dy_stride, bool accumulate, int64_t n_rows,
                            int64_t width);

#ifdef __cplusplus
}
#endif

#endif
