#ifndef MAGMAX_KERNELS_CPU_LAYERNORM_H
#define MAGMAX_KERNELS_CPU_LAYERNORM_H

#include "kernels/cpu/cpu.h"

/** The gradients of gamma and beta are summed over at most this many groups of
 * rows, then over the groups, in an order that no thread count changes. */
enum { MM_CPU_ROW_GROUPS = 64 };

static inline int64_t MM_CPU(layernorm_scratch)(int64_t width)
{
    return MM_CPU_ROW_GROUPS * 2 * width * (int64_t)sizeof(float);
}

#endif
