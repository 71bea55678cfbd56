#ifndef MAGMAX_KERNELS_CUDA_OPS_BF16_H
#define MAGMAX_KERNELS_CUDA_OPS_BF16_H

#include "kernels/cuda/cuda.h"

#include <cuda_bf16.h>

/*
 * Ops of the list whose activations are bf16: as the op of the same name, with
 * parameters, statistics and parameter gradients in fp32. C++ only, until the
 * op list has number types.
 */

typedef __nv_bfloat16 mm_bf16;

extern "C" {

mm_status mm_cuda_patchify_bf16(mm_stream *stream, mm_bf16 *columns,
                                const uint8_t *images, int64_t n_images,
                                int64_t image_size, int64_t patch_size,
                                const float *mean, const float *std);
mm_status mm_cuda_embed_tokens_bf16(mm_stream *stream, mm_bf16 *x,
                                    const mm_bf16 *patches,
                                    const float *class_embedding,
                                    const float *pos, int64_t n_images,
                                    int64_t n_tokens, int64_t width);
mm_status mm_cuda_embed_tokens_grad_bf16(mm_stream *stream, mm_bf16 *dpatches,
                                         float *dclass, float *dpos,
                                         const mm_bf16 *dx, bool accumulate,
                                         int64_t n_images, int64_t n_tokens,
                                         int64_t width);
mm_status mm_cuda_layernorm_bf16(mm_stream *stream, mm_bf16 *y, float *mean,
                                 float *rstd, const mm_bf16 *x,
                                 int64_t x_stride, const float *gamma,
                                 const float *beta, float eps, int64_t n_rows,
                                 int64_t width);
mm_status mm_cuda_layernorm_grad_bf16(
    mm_stream *stream, mm_bf16 *dx, float *dgamma, float *dbeta,
    const mm_bf16 *residual, const mm_bf16 *dy, const mm_bf16 *x,
    int64_t x_stride, const float *mean, const float *rstd, const float *gamma,
    bool accumulate, int64_t n_rows, int64_t width);
mm_status mm_cuda_attention_bf16(mm_stream *stream, mm_bf16 *out, float *lse,
                                 const mm_bf16 *qkv, bool causal,
                                 int64_t n_images, int64_t n_tokens,
                                 int64_t width, int64_t n_heads);
mm_status mm_cuda_attention_grad_bf16(mm_stream *stream, mm_bf16 *dqkv,
                                      const mm_bf16 *dout, const mm_bf16 *out,
                                      const float *lse, const mm_bf16 *qkv,
                                      bool causal, int64_t n_images,
                                      int64_t n_tokens, int64_t width,
                                      int64_t n_heads);
mm_status mm_cuda_copy_rows_bf16(mm_stream *stream, mm_bf16 *to,
                                 int64_t to_stride, const mm_bf16 *from,
                                 int64_t from_stride, int64_t n_rows,
                                 int64_t width);
mm_status mm_cuda_activate_bf16(mm_stream *stream, mm_bf16 *y, const mm_bf16 *x,
                                mm_activation activation, int64_t n_elems);
mm_status mm_cuda_activate_grad_bf16(mm_stream *stream, mm_bf16 *dx,
                                     const mm_bf16 *x, mm_activation activation,
                                     int64_t n_elems);
mm_status mm_cuda_column_sums_bf16(mm_stream *stream, float *sums,
                                   const mm_bf16 *x, bool accumulate,
                                   int64_t n_rows, int64_t width);
}

#endif
