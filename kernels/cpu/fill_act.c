/* Setting activations to one value; on the CPU they are floats. */

#include "kernels/cpu/cpu.h"

mm_status MM_CPU(fill_act)(mm_stream *stream, mm_act *x, float value,
                           int64_t n_elems)
{
    MM_CPU_REQUIRE("fill_act", stream && n_elems >= 0 && (x || n_elems == 0));
    return MM_CPU(fill)(stream, MM_CPU_FLOATS(x), value, n_elems);
}
