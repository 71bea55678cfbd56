/* Copying the rows of a matrix that an index names. */

#include "kernels/cpu/cpu.h"

#include <string.h>

mm_status MM_CPU(gather_rows)(mm_stream *stream, mm_act *to, const mm_act *from,
                              const int64_t *index, int64_t n_rows,
                              int64_t width)
{
    MM_CPU_REQUIRE("gather_rows", stream && n_rows >= 0 && width >= 0);
    MM_CPU_REQUIRE("gather_rows", n_rows == 0 || (to && from && index));
    float *out = MM_CPU_FLOATS(to);
    const float *in = MM_CPU_FLOATS(from);
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_rows * width);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < n_rows; i++)
        memcpy(out + i * width, in + index[i] * width,
               (size_t)width * sizeof *out);
    return MM_OK;
}
