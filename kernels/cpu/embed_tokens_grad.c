/* The gradient of embed_tokens: sums over the images for positions and class
 * token, and the patches' rows. */

#include "kernels/cpu/cpu.h"

#include <string.h>

mm_status MM_CPU(embed_tokens_grad)(mm_stream *stream, mm_act *dpatches,
                                    float *dclass, float *dpos,
                                    const mm_act *dx, bool accumulate,
                                    int64_t n_images, int64_t n_tokens,
                                    int64_t width)
{
    MM_CPU_REQUIRE("embed_tokens_grad", stream && n_images >= 0);
    MM_CPU_REQUIRE("embed_tokens_grad", n_tokens >= 0 && width >= 0);
    if (n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CPU_REQUIRE("embed_tokens_grad", dclass && dpos);
    MM_CPU_REQUIRE("embed_tokens_grad",
                   n_images == 0 || (dx && (dpatches || n_tokens == 1)));
    float *to = MM_CPU_FLOATS(dpatches);
    const float *from = MM_CPU_FLOATS(dx);
    size_t n_bytes = (size_t)width * sizeof(float);
    int team =
        mm_cpu_team(mm_cpu_stream_of(stream), n_images * n_tokens * width);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t t = 0; t < n_tokens; t++) {
        float *sum = dpos + t * width;
        if (!accumulate)
            memset(sum, 0, n_bytes);
        if (t == 0 && !accumulate)
            memset(dclass, 0, n_bytes);
        for (int64_t b = 0; b < n_images; b++) {
            const float *row = from + (b * n_tokens + t) * width;
#pragma omp simd
            for (int64_t c = 0; c < width; c++)
                sum[c] += row[c];
            if (t > 0) {
                memcpy(to + (b * (n_tokens - 1) + t - 1) * width, row, n_bytes);
                continue;
            }
#pragma omp simd
            for (int64_t c = 0; c < width; c++)
                dclass[c] += row[c];
        }
    }
    return MM_OK;
}
