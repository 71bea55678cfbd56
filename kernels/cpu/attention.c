/* Attention on the CPU, one head of one image after the other, in blocks of
 * query rows. */

#include "kernels/cpu/attention.h"

#include "kernels/cpu/elementary.h"

#include <math.h>
#include <omp.h>

typedef struct scratch {
    float *keys;   /* k', packed   */
    float *values; /* v, packed    */
    float *scores; /* [rows, keys] */
    float *out;    /* [rows, cols] */
} scratch;

static scratch divide(float *memory, const mm_cpu_heads *h)
{
    scratch s;
    s.keys = memory;
    s.values = s.keys + h->keys * h->head_width;
    s.scores = s.values + h->n_tokens * h->cols;
    s.out = s.scores + h->rows * h->keys;
    return s;
}

/* Scores become exp(scale (score - max)), unseen ones 0, up to whole tiles.
 * Returns their sum and the largest score, scaled. */
static float exponentials(float *score, int64_t n_seen, int64_t n_padded,
                          float scale, float *max_out)
{
    float max = -INFINITY, sum = 0.0f;
    MM_CPU(mask)(score, n_seen, n_padded);
#pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < n_padded; j++)
        max = score[j] > max ? score[j] : max;
    for (int64_t j = 0; j < n_padded; j += MM_TILE_COLS) {
        float *at = score + j;
#pragma omp simd
        for (int lane = 0; lane < MM_TILE_COLS; lane++)
            at[lane] = mm_exp((at[lane] - max) * scale);
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n_padded; j++)
        sum += score[j];
    *max_out = max * scale;
    return sum;
}

/* One head of one image; out, lse and qkv point at its first token. */
static void head(float *out, float *lse, const float *qkv,
                 const mm_cpu_heads *h, const scratch *s)
{
    const int64_t ld = 3 * h->width;
    const float scale = 1.0f / sqrtf((float)h->head_width);
    MM_CPU(pack_head_transposed)
    (s->keys, qkv + h->width, ld, h->n_tokens, h->head_width);
    MM_CPU(pack_head)
    (s->values, qkv + 2 * h->width, ld, h->n_tokens, h->head_width);
    for (int64_t i0 = 0; i0 < h->n_tokens; i0 += h->rows) {
        int64_t n_rows = mm_min_i64(h->rows, h->n_tokens - i0);
        int64_t seen = MM_CPU(visible)(h, i0 + n_rows - 1);
        int64_t padded = mm_round_up(seen, MM_TILE_COLS);
        float inv_sum[MM_CPU_QUERY_ROWS];
        MM_CPU(block_product)
        (s->scores, h->keys, qkv + i0 * ld, ld, s->keys, n_rows,
         mm_round_up(seen, MM_TILE_COLS), h->head_width, false);
        for (int64_t i = 0; i < n_rows; i++) {
            float max;
            float sum =
                exponentials(s->scores + i * h->keys,
                             MM_CPU(visible)(h, i0 + i), padded, scale, &max);
            inv_sum[i] = 1.0f / sum;
            if (lse)
                lse[i0 + i] = max + logf(sum);
        }
        /* Panels of v are n_tokens long; a causal block reads their start. */
        for (int64_t j = 0; j < h->cols; j += MM_TILE_COLS)
            MM_CPU(block_product)
        (s->out + j, h->cols, s->scores, h->keys, s->values + j * h->n_tokens,
         n_rows, MM_TILE_COLS, seen, false);
        for (int64_t i = 0; i < n_rows; i++) {
            const float *sum = s->out + i * h->cols;
            float *row = out + (i0 + i) * h->width;
#pragma omp simd
            for (int64_t d = 0; d < h->head_width; d++)
                row[d] = sum[d] * inv_sum[i];
        }
    }
}

mm_status MM_CPU(attention)(mm_stream *stream, mm_act *out, float *lse,
                            const mm_act *qkv, bool causal, int64_t n_images,
                            int64_t n_tokens, int64_t width, int64_t n_heads)
{
    MM_CPU_REQUIRE("attention", stream && n_images >= 0 && n_tokens >= 0);
    MM_CPU_REQUIRE("attention",
                   width >= 0 && n_heads > 0 && width % n_heads == 0);
    if (n_images == 0 || n_tokens == 0 || width == 0)
        return MM_OK;
    MM_CPU_REQUIRE("attention", out && qkv);
    float *to = MM_CPU_FLOATS(out);
    const float *from = MM_CPU_FLOATS(qkv);
    mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    const mm_cpu_heads h = MM_CPU(heads)(causal, n_tokens, width, n_heads);
    MM_CPU_REQUIRE_SCRATCH(
        "attention", cpu,
        MM_CPU(attention_scratch)(false, n_tokens, h.head_width));
    int64_t work = n_tokens * n_tokens * h.head_width * 2;
    int team = mm_cpu_team(cpu, n_images * n_heads * work / 16);
#pragma omp parallel num_threads(team)
    {
        int thread = omp_get_thread_num();
        int64_t done = 0;
        scratch s =
            divide((float *)(cpu->scratch + thread * cpu->scratch_bytes), &h);
#pragma omp for schedule(dynamic, 4)
        for (int64_t task = 0; task < n_images * n_heads; task++) {
            int64_t image = task / n_heads, index = task % n_heads;
            head(to + image * n_tokens * width + index * h.head_width,
                 lse ? lse + task * n_tokens : NULL,
                 from + image * n_tokens * 3 * width + index * h.head_width, &h,
                 &s);
            mm_cpu_poll(stream, thread, &done, work);
        }
    }
    return MM_OK;
}
