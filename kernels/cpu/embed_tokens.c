/* The class token in front of an image's patches, plus positions. */

#include "kernels/cpu/cpu.h"

mm_status MM_CPU(embed_tokens)(mm_stream *stream, mm_act *x,
                               const mm_act *patches,
                               const float *class_embedding, const float *pos,
                               int64_t n_images, int64_t n_tokens,
                               int64_t width)
{
    MM_CPU_REQUIRE("embed_tokens", stream && n_images >= 0);
    MM_CPU_REQUIRE("embed_tokens", n_tokens >= 0 && width >= 0);
    if (n_images == 0 || n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CPU_REQUIRE("embed_tokens", x && class_embedding && pos);
    MM_CPU_REQUIRE("embed_tokens", patches || n_tokens == 1);
    float *to = MM_CPU_FLOATS(x);
    const float *from = MM_CPU_FLOATS(patches);
    int64_t n_rows = n_images * n_tokens;
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_rows * width);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t row = 0; row < n_rows; row++) {
        int64_t b = row / n_tokens, t = row % n_tokens;
        const float *token =
            t == 0 ? class_embedding : from + (row - b - 1) * width;
        const float *at = pos + t * width;
        float *out = to + row * width;
#pragma omp simd
        for (int64_t c = 0; c < width; c++)
            out[c] = token[c] + at[c];
    }
    return MM_OK;
}
