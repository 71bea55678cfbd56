/* Floats as activations on the CPU, where those are fp32 too: a copy. */

#include "kernels/cpu/flat.h"

#include <string.h>

mm_status MM_CPU(float_to_act)(mm_stream *stream, mm_act *to, const float *from,
                               int64_t n_elems)
{
    MM_CPU_REQUIRE("float_to_act", stream && n_elems >= 0);
    MM_CPU_REQUIRE("float_to_act", n_elems == 0 || (to && from));
    float *out = MM_CPU_FLOATS(to);
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        memcpy(out + lo, from + lo, (size_t)(hi - lo) * sizeof *out);
    });
    return MM_OK;
}
