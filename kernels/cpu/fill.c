/* Setting every element of a flat buffer of floats to one value. */

#include "kernels/cpu/flat.h"

mm_status MM_CPU(fill)(mm_stream *stream, float *x, float value,
                       int64_t n_elems)
{
    MM_CPU_REQUIRE("fill", stream && n_elems >= 0 && (x || n_elems == 0));
    MM_CPU_FOR_CHUNKS(stream, n_elems, lo, hi, {
        for (int64_t i = lo; i < hi; i++)
            x[i] = value;
    });
    return MM_OK;
}
