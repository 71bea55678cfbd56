/* The gradient of attention on the CPU; probabilities are computed again from
 * the saved log-sum-exp. */

#include "kernels/cpu/attention.h"

#include "kernels/cpu/column_sums.h"
#include "kernels/cpu/elementary.h"

#include <math.h>
#include <omp.h>

typedef struct scratch {
    float *keys_t, *values_t; /* k', v', packed: [D, keys]     */
    float *keys, *dkeys;      /* k packed; dk: [T, cols]       */
    float *dvalues;           /* [T, cols]                     */
    float *probs, *dscores;   /* [rows, keys]                  */
    float *queries, *dout;    /* this block's, packed          */
    float *dqueries;          /* [rows, cols]                  */
} scratch;

static scratch divide(float *memory, const mm_cpu_heads *h)
{
    scratch s;
    s.keys_t = memory;
    s.values_t = s.keys_t + h->keys * h->head_width;
    s.keys = s.values_t + h->keys * h->head_width;
    s.dkeys = s.keys + h->n_tokens * h->cols;
    s.dvalues = s.dkeys + h->n_tokens * h->cols;
    s.probs = s.dvalues + h->n_tokens * h->cols;
    s.dscores = s.probs + h->rows * h->keys;
    s.queries = s.dscores + h->rows * h->keys;
    s.dout = s.queries + h->rows * h->cols;
    s.dqueries = s.dout + h->rows * h->cols;
    return s;
}

/* One head of one image, each pointer at its first token. */
typedef struct head_io {
    float *dqkv;
    const float *dout, *out, *lse, *qkv;
} head_io;

/* Scores become probabilities p = exp(scale score - lse), and dp = dout v'
 * becomes dscores = scale p (dp - sum over d of dout out). */
static void row_grad(float *prob, float *dscore, const float *dout,
                     const float *out, float lse, float scale,
                     int64_t head_width, int64_t n_seen, int64_t n_padded)
{
    float delta = 0.0f;
#pragma omp simd reduction(+ : delta)
    for (int64_t d = 0; d < head_width; d++)
        delta += dout[d] * out[d];
    MM_CPU(mask)(prob, n_seen, n_padded);
    for (int64_t j = 0; j < n_padded; j += MM_TILE_COLS) {
        float *p = prob + j, *ds = dscore + j;
#pragma omp simd
        for (int lane = 0; lane < MM_TILE_COLS; lane++) {
            p[lane] = mm_exp(p[lane] * scale - lse);
            ds[lane] = scale * p[lane] * (ds[lane] - delta);
        }
    }
}

static void block_grad(const head_io *io, const mm_cpu_heads *h,
                       const scratch *s, int64_t i0, int64_t n_rows)
{
    const int64_t ld = 3 * h->width;
    const float scale = 1.0f / sqrtf((float)h->head_width);
    const float *queries = io->qkv + i0 * ld;
    const float *dout = io->dout + i0 * h->width;
    int64_t seen = MM_CPU(visible)(h, i0 + n_rows - 1);
    int64_t padded = mm_round_up(seen, MM_TILE_COLS);

    MM_CPU(block_product)
    (s->probs, h->keys, queries, ld, s->keys_t, n_rows, padded, h->head_width,
     false);
    MM_CPU(block_product)
    (s->dscores, h->keys, dout, h->width, s->values_t, n_rows, padded,
     h->head_width, false);
    for (int64_t i = 0; i < n_rows; i++)
        row_grad(s->probs + i * h->keys, s->dscores + i * h->keys,
                 dout + i * h->width, io->out + (i0 + i) * h->width,
                 io->lse[i0 + i], scale, h->head_width,
                 MM_CPU(visible)(h, i0 + i), padded);

    MM_CPU(pack_head)(s->queries, queries, ld, n_rows, h->head_width);
    MM_CPU(pack_head)(s->dout, dout, h->width, n_rows, h->head_width);
    MM_CPU(block_product_transposed)
    (s->dvalues, h->cols, s->probs, h->keys, s->dout, seen, h->cols, n_rows);
    MM_CPU(block_product_transposed)
    (s->dkeys, h->cols, s->dscores, h->keys, s->queries, seen, h->cols, n_rows);
    /* Panels of k are n_tokens long; a causal block reads their start. */
    for (int64_t j = 0; j < h->cols; j += MM_TILE_COLS)
        MM_CPU(block_product)
    (s->dqueries + j, h->cols, s->dscores, h->keys, s->keys + j * h->n_tokens,
     n_rows, MM_TILE_COLS, seen, false);
    for (int64_t i = 0; i < n_rows; i++)
        memcpy(io->dqkv + (i0 + i) * ld, s->dqueries + i * h->cols,
               (size_t)h->head_width * sizeof(float));
}

static void head_grad(const head_io *io, const mm_cpu_heads *h,
                      const scratch *s)
{
    const int64_t ld = 3 * h->width;
    const float *keys = io->qkv + h->width, *values = io->qkv + 2 * h->width;
    MM_CPU(pack_head_transposed)
    (s->keys_t, keys, ld, h->n_tokens, h->head_width);
    MM_CPU(pack_head_transposed)
    (s->values_t, values, ld, h->n_tokens, h->head_width);
    MM_CPU(pack_head)(s->keys, keys, ld, h->n_tokens, h->head_width);
    size_t n_bytes = (size_t)(h->n_tokens * h->cols) * sizeof(float);
    memset(s->dkeys, 0, n_bytes);
    memset(s->dvalues, 0, n_bytes);
    for (int64_t i0 = 0; i0 < h->n_tokens; i0 += h->rows)
        block_grad(io, h, s, i0, mm_min_i64(h->rows, h->n_tokens - i0));
    n_bytes = (size_t)h->head_width * sizeof(float);
    for (int64_t i = 0; i < h->n_tokens; i++) {
        float *row = io->dqkv + i * ld;
        memcpy(row + h->width, s->dkeys + i * h->cols, n_bytes);
        memcpy(row + 2 * h->width, s->dvalues + i * h->cols, n_bytes);
    }
}

mm_status MM_CPU(attention_grad)(mm_stream *stream, mm_act *dqkv, float *dbias,
                                 const mm_act *dout, const mm_act *out,
                                 const float *lse, const mm_act *qkv,
                                 bool causal, bool accumulate, int64_t n_images,
                                 int64_t n_tokens, int64_t width,
                                 int64_t n_heads)
{
    MM_CPU_REQUIRE("attention_grad", stream && n_images >= 0 && n_tokens >= 0);
    MM_CPU_REQUIRE("attention_grad",
                   width >= 0 && n_heads > 0 && width % n_heads == 0);
    if (n_images == 0 || n_tokens == 0 || width == 0) {
        if (dbias)
            MM_CPU(column_sums)
        (stream, dbias, NULL, 0, accumulate, 0, 3 * width);
        return MM_OK;
    }
    MM_CPU_REQUIRE("attention_grad", dqkv && dout && out && lse && qkv);
    mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    const mm_cpu_heads h = MM_CPU(heads)(causal, n_tokens, width, n_heads);
    MM_CPU_REQUIRE_SCRATCH(
        "attention_grad", cpu,
        MM_CPU(attention_scratch)(true, n_tokens, h.head_width));
    int64_t work = n_tokens * n_tokens * h.head_width * 5;
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
            int64_t token = image * n_tokens, col = index * h.head_width;
            head_io io = {.dqkv = MM_CPU_FLOATS(dqkv) + token * 3 * width + col,
                          .dout = MM_CPU_FLOATS(dout) + token * width + col,
                          .out = MM_CPU_FLOATS(out) + token * width + col,
                          .lse = lse + task * n_tokens,
                          .qkv = MM_CPU_FLOATS(qkv) + token * 3 * width + col};
            head_grad(&io, &h, &s);
            mm_cpu_poll(stream, thread, &done, work);
        }
    }
    if (dbias)
        MM_CPU(column_sums)
    (stream, dbias, MM_CPU_FLOATS(dqkv), 3 * width, accumulate,
     n_images * n_tokens, 3 * width);
    return MM_OK;
}
