/* Activations as floats on the CPU, where they are fp32 already: a copy. */

#include "kernels/cpu/flat.h"

#include <string.h>

mm_status MM_CPU(act_to_float)(mm_stream *stream, float *to, const mm_act *from,
                               int64_t n_elems)
{
    MM_CPU_REQUIRE("act_to_float", stream && n_elems >= 0);
    MM_CPU_REQUIRE("act_to_float", n_elems == 0 || (to && from));
    const float *in = MM_CPU_FLOATS(from);
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        memcpy(to + lo, in + lo, (size_t)(hi - lo) * sizeof *to);
    });
    return MM_OK;
}
