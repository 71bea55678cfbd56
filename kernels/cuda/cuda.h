#ifndef MAGMAX_KERNELS_CUDA_CUDA_H
#define MAGMAX_KERNELS_CUDA_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/backend.h"
#include "kernels/cuda/variants.h"

/*
 * Shared by the CUDA ops; private to kernels/cuda. C and CUDA sources both
 * include it.
 */

#define MM_OP(op, args) mm_status mm_cuda_##op args;
#include "kernels/ops_list.h"
#undef MM_OP

extern const mm_backend mm_backend_cuda;
extern const mm_ops mm_cuda_ops;

/** What activations are, and how fp32 matrices are multiplied. */
typedef enum mm_cuda_precision {
    MM_CUDA_FP32, /* fp32; exactly                                */
    MM_CUDA_TF32, /* fp32; factors rounded to 10 bits of fraction */
    MM_CUDA_BF16  /* bf16; exactly                                */
} mm_cuda_precision;

/** An error that a kernel found; in host memory that the device can write. */
typedef struct mm_cuda_fault {
    int32_t kind; /* 0, or mm_cuda_fault_kind */
    int32_t label;
    int64_t image, n_classes;
} mm_cuda_fault;

enum mm_cuda_fault_kind { MM_CUDA_BAD_LABEL = 1 };

typedef struct mm_cuda_products mm_cuda_products;

typedef struct mm_cuda_stream {
    mm_stream base;
    cudaStream_t stream;
    mm_cuda_precision precision;
    mm_cuda_variants variants;
    int n_sms;
    int64_t shared_bytes; /* most that a block may have */
    void *partials;       /* [MM_CUDA_PARTIAL_BYTES] sums of blocks */
    void *scratch;        /* mm_stream_reserve */
    int64_t scratch_bytes;
    mm_cuda_fault *fault;
    mm_cuda_products *products;
} mm_cuda_stream;

/** Bytes that layernorm_grad needs: sums of gamma's and beta's gradients. */
int64_t mm_cuda_layernorm_scratch(int64_t width);

/** Where reductions leave the sums of their blocks. Attention's are the
 * largest: one of every image, 3 times the width; 682 images of ViT-L's fit. */
enum { MM_CUDA_PARTIAL_BYTES = 8 << 20 };

static inline mm_cuda_stream *mm_cuda_stream_of(mm_stream *stream)
{
    return (mm_cuda_stream *)stream;
}

/**
 * MM_OK, or a failure: what was tried, what the vendor says, where in the
 * source. The arguments after the call are a format and its values.
 */
#define MM_CUDA(call, ...) \
    mm_cuda_check((call), __FILE__, __LINE__, __VA_ARGS__)
mm_status mm_cuda_check(cudaError_t error, const char *file, int line,
                        const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/** Refuse invalid arguments; the text names the condition. */
#define MM_CUDA_REQUIRE(op, condition)                                  \
    do {                                                                \
        if (!(condition))                                               \
            return mm_fail(MM_E_ARG, "op %s needs %s", op, #condition); \
    } while (0)

/** Refuse where mm_stream_reserve has not been given enough. */
#define MM_CUDA_REQUIRE_SCRATCH(op, cuda, n_bytes)               \
    do {                                                         \
        if ((cuda)->scratch_bytes < (n_bytes))                   \
            return mm_fail(MM_E_ARG,                             \
                           "op %s needs %lld bytes of scratch, " \
                           "the stream has %lld",                \
                           op, (long long)(n_bytes),             \
                           (long long)(cuda)->scratch_bytes);    \
    } while (0)

static inline int64_t mm_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t mm_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#ifdef __cplusplus
}
#endif

#endif
