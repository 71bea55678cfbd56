#include "src/tasks/resample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Bytes that are weighed at once: both passes run along contiguous bytes, the
 * column pass on a block of LANES rows that is transposed first. */
enum { LANES = 32, WEIGHT_BITS = 32 - 8 - 2 };

/* The weigher is compiled for several vector widths, chosen at start. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define MM_WIDE __attribute__((target_clones("avx2", "sse4.1", "default")))
#else
#define MM_WIDE
#endif

/** Which inputs make one output, and their weights. */
typedef struct tap_range {
    int64_t first;
    int32_t n_taps;
    const int32_t *weights;
} tap_range;

/** One direction of a resize: the taps of each wanted output. */
typedef struct axis {
    bool copied; /* same size: outputs are inputs */
    tap_range *taps;
    int64_t taps_bytes;
    int32_t *weights;
    int64_t weights_bytes;
    double *exact; /* weights of one output, before rounding */
    int64_t exact_bytes;
} axis;

struct mm_resampler {
    axis across, down;
    uint8_t *block; /* LANES rows, transposed: [column * channel][LANES] */
    int64_t block_bytes;
    uint8_t *narrow; /* after the column pass: [rows][stride]            */
    int64_t narrow_bytes;
};

mm_status mm_resampler_create(mm_resampler **resampler)
{
    *resampler = calloc(1, sizeof **resampler);
    if (!*resampler)
        return mm_fail(MM_E_MEMORY, "no memory to resize images");
    return MM_OK;
}

static void clear_axis(axis *a)
{
    free(a->taps);
    free(a->weights);
    free(a->exact);
}

void mm_resampler_destroy(mm_resampler **resampler)
{
    if (!*resampler)
        return;
    clear_axis(&(*resampler)->across);
    clear_axis(&(*resampler)->down);
    free((*resampler)->block);
    free((*resampler)->narrow);
    free(*resampler);
    *resampler = NULL;
}

/** Make *buffer hold n_bytes; its content is lost when it grows. */
static mm_status reserve(void *buffer, int64_t *held_bytes, int64_t n_bytes)
{
    if (n_bytes <= *held_bytes)
        return MM_OK;
    void *grown = calloc(1, (size_t)n_bytes);
    if (!grown)
        return mm_fail(MM_E_MEMORY, "no memory for %lld bytes to resize images",
                       (long long)n_bytes);
    void *before;
    memcpy(&before, buffer, sizeof before);
    free(before);
    memcpy(buffer, &grown, sizeof grown);
    *held_bytes = n_bytes;
    return MM_OK;
}

/** Cubic convolution with a = -0.5 (Keys 1981), in Pillow's grouping. */
static double bicubic(double x)
{
    const double a = -0.5;
    if (x < 0.0)
        x = -x;
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static int32_t fixed_point(double weight)
{
    double scaled = weight * (1 << WEIGHT_BITS);
    return (int32_t)(weight < 0 ? -0.5 + scaled : 0.5 + scaled);
}

/** Taps of outputs [lo, lo + n) when n_in inputs become n_out outputs. */
static mm_status plan_axis(axis *a, int64_t n_in, int64_t n_out, int64_t lo,
                           int64_t n)
{
    double scale = (double)n_in / (double)n_out;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * filter_scale, inverse = 1.0 / filter_scale;
    int64_t most_taps = (int64_t)ceil(support) * 2 + 1;

    a->copied = n_in == n_out;
    MM_TRY(reserve(&a->taps, &a->taps_bytes, n * (int64_t)sizeof *a->taps));
    MM_TRY(reserve(&a->weights, &a->weights_bytes,
                   n * most_taps * (int64_t)sizeof *a->weights));
    MM_TRY(reserve(&a->exact, &a->exact_bytes,
                   most_taps * (int64_t)sizeof *a->exact));
    for (int64_t i = 0; i < n; i++) {
        double center = ((double)(lo + i) + 0.5) * scale;
        int64_t first = (int64_t)(center - support + 0.5);
        int64_t end = (int64_t)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > n_in ? n_in : end;
        double sum = 0.0;
        for (int64_t tap = 0; tap < end - first; tap++) {
            a->exact[tap] =
                bicubic(((double)(tap + first) - center + 0.5) * inverse);
            sum += a->exact[tap];
        }
        int32_t *weights = a->weights + i * most_taps;
        for (int64_t tap = 0; tap < end - first; tap++)
            weights[tap] =
                fixed_point(sum != 0.0 ? a->exact[tap] / sum : a->exact[tap]);
        a->taps[i] = (tap_range){first, (int32_t)(end - first), weights};
    }
    return MM_OK;
}

/** out[lane] = sum over taps of weight * in[tap * stride + lane], rounded and
 * clamped to a byte, for LANES neighbours. */
MM_WIDE static void weigh(const uint8_t *in, int64_t stride,
                          const int32_t *weights, int32_t n_taps, uint8_t *out)
{
    int32_t sums[LANES];
    for (int lane = 0; lane < LANES; lane++)
        sums[lane] = 1 << (WEIGHT_BITS - 1);
    for (int32_t tap = 0; tap < n_taps; tap++, in += stride)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += in[lane] * weights[tap];
    for (int lane = 0; lane < LANES; lane++) {
        int32_t v = sums[lane] >> WEIGHT_BITS;
        out[lane] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

/* Sixteen bytes, and the interleaved halves of two of them. */
enum { TILE = 16 };
typedef uint8_t tile_row __attribute__((vector_size(TILE)));
#define MM_LOWER(a, b)                                                         \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, \
                            22, 7, 23)
#define MM_UPPER(a, b)                                                      \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, \
                            29, 14, 30, 15, 31)

/** Transpose TILE x TILE bytes from rows, at byte `at`, to lanes of the block:
 * four perfect shuffles of the rows. */
static void transpose_tile(const uint8_t *const rows[TILE], int64_t at,
                           uint8_t *block)
{
    tile_row a[TILE], b[TILE];
    for (int r = 0; r < TILE; r++)
        memcpy(&a[r], rows[r] + at, TILE);
    for (int pass = 0; pass < 2; pass++) {
        for (int r = 0; r < TILE / 2; r++) {
            b[2 * r] = MM_LOWER(a[r], a[r + TILE / 2]);
            b[2 * r + 1] = MM_UPPER(a[r], a[r + TILE / 2]);
        }
        for (int r = 0; r < TILE / 2; r++) {
            a[2 * r] = MM_LOWER(b[r], b[r + TILE / 2]);
            a[2 * r + 1] = MM_UPPER(b[r], b[r + TILE / 2]);
        }
    }
    for (int i = 0; i < TILE; i++)
        memcpy(block + (at + i) * LANES, &a[i], TILE);
}

/** Transpose columns [lo, hi) of n_rows <= LANES rows into the block. */
static void fill_block(uint8_t *block, const mm_pixels *pixels, int64_t row,
                       int64_t n_rows, int64_t lo, int64_t hi)
{
    const uint8_t *rows[LANES];
    for (int64_t r = 0; r < LANES; r++) {
        /* Lanes beyond the last row repeat it; nobody reads them. */
        int64_t from = row + (r < n_rows ? r : n_rows - 1);
        rows[r] =
            pixels->first + from * pixels->stride_bytes + lo * pixels->channels;
    }
    int64_t n_bytes = (hi - lo) * pixels->channels, i = 0;
    for (; i + TILE <= n_bytes; i += TILE)
        for (int r = 0; r < LANES; r += TILE)
            transpose_tile(rows + r, i, block + r);
    for (; i < n_bytes; i++)
        for (int r = 0; r < LANES; r++)
            block[i * LANES + r] = rows[r][i];
}

/** The column pass: rows [row, row + n_rows) become narrow. */
static mm_status run_across(mm_resampler *s, const mm_pixels *pixels,
                            int64_t row, int64_t n_rows, int64_t n_columns,
                            int64_t stride)
{
    const axis *a = &s->across;
    const tap_range *last = &a->taps[n_columns - 1];
    int64_t lo = a->taps[0].first, hi = last->first + last->n_taps;
    int channels = pixels->channels;
    MM_TRY(reserve(&s->block, &s->block_bytes, (hi - lo) * channels * LANES));

    for (int64_t done = 0; done < n_rows; done += LANES) {
        int64_t n = n_rows - done < LANES ? n_rows - done : LANES;
        fill_block(s->block, pixels, row + done, n, lo, hi);
        uint8_t *out = s->narrow + done * stride;
        for (int64_t x = 0; x < n_columns; x++) {
            const tap_range *taps = &a->taps[x];
            for (int c = 0; c < channels; c++, out++) {
                uint8_t column[LANES];
                weigh(s->block + ((taps->first - lo) * channels + c) * LANES,
                      (int64_t)channels * LANES, taps->weights, taps->n_taps,
                      column);
                for (int64_t r = 0; r < n; r++)
                    out[r * stride] = column[r];
            }
        }
    }
    return MM_OK;
}

static void copy_across(mm_resampler *s, const mm_pixels *pixels, int64_t row,
                        int64_t n_rows, const mm_window *window, int64_t stride)
{
    for (int64_t r = 0; r < n_rows; r++)
        memcpy(s->narrow + r * stride,
               pixels->first + (row + r) * pixels->stride_bytes +
                   window->left * pixels->channels,
               (size_t)(window->width * pixels->channels));
}

/** The row pass: output row y from narrow, whose first row is input `row`. */
static void run_down(const mm_resampler *s, int64_t row, int64_t stride,
                     int64_t y, int64_t row_bytes, uint8_t *out)
{
    const tap_range *taps = &s->down.taps[y];
    const uint8_t *in = s->narrow + (taps->first - row) * stride;
    int64_t i = 0;
    for (; i + LANES <= row_bytes; i += LANES)
        weigh(in + i, stride, taps->weights, taps->n_taps, out + i);
    if (i < row_bytes) {
        uint8_t rest[LANES];
        weigh(in + i, stride, taps->weights, taps->n_taps, rest);
        memcpy(out + i, rest, (size_t)(row_bytes - i));
    }
}

mm_status mm_resample(mm_resampler *s, const mm_pixels *pixels,
                      const mm_window *w, uint8_t *out)
{
    MM_ASSERT(pixels->height > 0 && pixels->width > 0);
    MM_ASSERT(w->height > 0 && w->top >= 0 &&
              w->top + w->height <= w->full_height);
    MM_ASSERT(w->width > 0 && w->left >= 0 &&
              w->left + w->width <= w->full_width);
    int64_t row_bytes = w->width * pixels->channels;
    int64_t stride = (row_bytes + LANES - 1) / LANES * LANES;
    int64_t row = w->top, n_rows = w->height;

    s->down.copied = pixels->height == w->full_height;
    if (!s->down.copied) {
        MM_TRY(plan_axis(&s->down, pixels->height, w->full_height, w->top,
                         w->height));
        const tap_range *last = &s->down.taps[w->height - 1];
        row = s->down.taps[0].first;
        n_rows = last->first + last->n_taps - row;
    }
    MM_TRY(reserve(&s->narrow, &s->narrow_bytes, n_rows * stride));
    if (pixels->width == w->full_width) {
        copy_across(s, pixels, row, n_rows, w, stride);
    } else {
        MM_TRY(plan_axis(&s->across, pixels->width, w->full_width, w->left,
                         w->width));
        MM_TRY(run_across(s, pixels, row, n_rows, w->width, stride));
    }
    for (int64_t y = 0; y < w->height; y++)
        if (s->down.copied)
            memcpy(out + y * row_bytes, s->narrow + y * stride,
                   (size_t)row_bytes);
        else
            run_down(s, row, stride, y, row_bytes, out + y * row_bytes);
    return MM_OK;
}
