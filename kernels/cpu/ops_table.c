/* The table of CPU ops for one instruction set. */

#include "kernels/cpu/cpu.h"

extern const mm_ops MM_CPU(ops);

const mm_ops MM_CPU(ops) = {
    .backend = "cpu",
#define MM_OP(op, args) .op = MM_CPU(op),
#include "kernels/ops_list.h"
#undef MM_OP
};
