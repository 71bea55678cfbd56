/* Copying rows between matrices of different strides. */

#include "kernels/cpu/cpu.h"

#include <string.h>

mm_status MM_CPU(copy_rows)(mm_stream *stream, mm_act *to, int64_t to_stride,
                            const mm_act *from, int64_t from_stride,
                            int64_t n_rows, int64_t width)
{
    MM_CPU_REQUIRE("copy_rows", stream && n_rows >= 0 && width >= 0);
    MM_CPU_REQUIRE("copy_rows", n_rows == 0 || (to && from));
    MM_CPU_REQUIRE("copy_rows", to_stride >= width && from_stride >= width);
    float *out = MM_CPU_FLOATS(to);
    const float *in = MM_CPU_FLOATS(from);
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_rows * width);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < n_rows; i++)
        memcpy(out + i * to_stride, in + i * from_stride,
               (size_t)width * sizeof *out);
    return MM_OK;
}
