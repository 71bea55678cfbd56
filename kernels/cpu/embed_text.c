/* Token embeddings looked up in the table, plus positions. */

#include "kernels/cpu/cpu.h"

mm_status MM_CPU(embed_text)(mm_stream *stream, mm_act *x,
                             const int32_t *tokens, const float *table,
                             const float *pos, int64_t n_texts,
                             int64_t n_tokens, int64_t width)
{
    MM_CPU_REQUIRE("embed_text", stream && n_texts >= 0);
    MM_CPU_REQUIRE("embed_text", n_tokens >= 0 && width >= 0);
    if (n_texts == 0 || n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CPU_REQUIRE("embed_text", x && tokens && table && pos);
    float *to = MM_CPU_FLOATS(x);
    int64_t n_rows = n_texts * n_tokens;
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_rows * width);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t row = 0; row < n_rows; row++) {
        const float *token = table + tokens[row] * width;
        const float *at = pos + row % n_tokens * width;
        float *out = to + row * width;
#pragma omp simd
        for (int64_t c = 0; c < width; c++)
            out[c] = token[c] + at[c];
    }
    return MM_OK;
}
