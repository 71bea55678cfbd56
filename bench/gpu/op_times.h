#ifndef MAGMAX_BENCH_GPU_OP_TIMES_H
#define MAGMAX_BENCH_GPU_OP_TIMES_H

#include "kernels/ops.h"
#include "src/model/config.h"

/** A device with memory for every op of a model's training step. */
typedef struct op_rig {
    mm_device *device;
    mm_stream *stream;
    const mm_ops *ops;
    mm_model_config config;
    /* B images, T tokens, C width, F of the MLP, H heads, L blocks, E features,
     * K classes; rows = B T; patches = B (T-1), of `pixels` numbers each; N
     * parameters; a bytes of an activation. */
    int64_t B, T, C, F, H, L, E, K, rows, patches, pixels, N, a;
    mm_act *x, *y, *z;           /* [rows, C]                */
    mm_act *wide, *wide2;        /* [rows, F], [patches, pixels] */
    mm_act *qkv, *dqkv;          /* [rows, 3C]               */
    mm_act *weights, *theta_low; /* [N]; theta_low: NULL in fp32 */
    float *theta, *grad, *m, *v;
    float *mean, *rstd, *lse, *logits, *dlogits, *features, *inv_norm;
    double *sum;
    int64_t *count;
    uint16_t *winner;
    uint8_t *images;
    int32_t *labels;
} op_rig;

/** One op at the sizes of the model. */
typedef struct op_case {
    const char *name;
    double calls; /* in a training step; 0: in none    */
    double bytes; /* every operand once                */
    double flop;
    mm_status (*run)(const op_rig *rig);
} op_case;

enum { MOST_CASES = 64 };

/** The cases of these sizes; how many. */
int op_cases(const op_rig *rig, op_case cases[MOST_CASES]);

#endif
