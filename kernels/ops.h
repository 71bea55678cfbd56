#ifndef MAGMAX_KERNELS_OPS_H
#define MAGMAX_KERNELS_OPS_H

#include "kernels/device.h"

#include <stdbool.h>

/**
 * A number of the stream's activation type: fp32, or bf16 on a device that was
 * opened with that precision. Opaque, so that only backends do arithmetic on
 * such pointers; mm_device_act_bytes says its size.
 */
typedef struct mm_act mm_act;

/** The activation inside a block's MLP. */
typedef enum mm_activation {
    MM_GELU,      /* x Phi(x), the erf form      */
    MM_QUICK_GELU /* x sigmoid(1.702 x)          */
} mm_activation;

/** AdamW's scalars for one step (Loshchilov and Hutter 2019, algorithm 2). */
typedef struct mm_adamw {
    float lr;
    float beta1, beta2;
    float eps;
    float weight_decay;
    float bias1, bias2; /* 1 - beta1^step, 1 - beta2^step, step from 1 */
    double clip;        /* largest norm of the gradient; 0: any        */
    const double *grad_squares; /* device, one: the squared norm       */
} mm_adamw;

/** One backend: every op of kernels/ops_list.h, documented there. */
typedef struct mm_ops {
    const char *backend;
#define MM_OP(op, args) mm_status(*op) args;
#include "kernels/ops_list.h"
#undef MM_OP
} mm_ops;

#endif
