/* Bicubic resizing of 8-bit and 16-bit channels in Pillow's arithmetic; the
 * inner loops are in resample_plain.c and resample_avx2.c. */

#include "src/image/resample_kernels.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/** Memory that grows to the largest use. */
typedef struct scratch {
    void *memory;
    int64_t n_bytes;
} scratch;

struct mm_resampler {
    mm_weigh *weigh;
    mm_axis across, down;
    /* Of the column pass: MM_LANES rows before and after it, transposed, so
     * that it too weighs bytes that lie side by side; then all rows after it.
     */
    scratch wide, slim, narrow;
    scratch last; /* an output row with room behind it */
};

mm_status mm_resampler_create_with(mm_weigh *weigh, mm_resampler **resampler)
{
    *resampler = calloc(1, sizeof **resampler);
    if (!*resampler)
        return mm_fail(MM_E_MEMORY, "no memory to resize images");
    (*resampler)->weigh = weigh;
    return MM_OK;
}

mm_status mm_resampler_create(mm_resampler **resampler)
{
    mm_weigh *fast = mm_weigh_avx2();
    return mm_resampler_create_with(fast ? fast : mm_weigh_plain, resampler);
}

void mm_resampler_destroy(mm_resampler **resampler)
{
    if (!*resampler)
        return;
    mm_axis_clear(&(*resampler)->across);
    mm_axis_clear(&(*resampler)->down);
    free((*resampler)->narrow.memory);
    free((*resampler)->wide.memory);
    free((*resampler)->slim.memory);
    free((*resampler)->last.memory);
    free(*resampler);
    *resampler = NULL;
}

static mm_status reserve(scratch *s, int64_t n_bytes)
{
    if (n_bytes <= s->n_bytes)
        return MM_OK;
    free(s->memory);
    s->memory = malloc((size_t)n_bytes);
    s->n_bytes = s->memory ? n_bytes : 0;
    return s->memory ? MM_OK
                     : mm_fail(MM_E_MEMORY,
                               "no memory for %lld bytes to resize an image",
                               (long long)n_bytes);
}

/** What a resize does in each direction, and with which rows. */
typedef struct job {
    const mm_pixels *pixels;
    const mm_window *window;
    bool across, down;   /* false: same size, outputs are inputs */
    int64_t row, n_rows; /* of the input, that the window needs  */
    int64_t stride;      /* of narrow                            */
} job;

static mm_status plan(mm_resampler *s, const mm_pixels *pixels,
                      const mm_window *w, job *j)
{
    MM_ASSERT(pixels->height > 0 && pixels->width > 0);
    MM_ASSERT(w->height > 0 && w->top >= 0 &&
              w->top + w->height <= w->full_height);
    MM_ASSERT(w->width > 0 && w->left >= 0 &&
              w->left + w->width <= w->full_width);
    *j = (job){
        .pixels = pixels,
        .window = w,
        .across = pixels->width != w->full_width,
        .down = pixels->height != w->full_height,
        .row = w->top,
        .n_rows = w->height,
    };
    if (j->across)
        MM_TRY(mm_axis_set(&s->across, pixels->width, w->full_width, w->left,
                           w->width));
    if (j->down) {
        MM_TRY(mm_axis_set(&s->down, pixels->height, w->full_height, w->top,
                           w->height));
        j->row = s->down.from;
        j->n_rows = s->down.to - s->down.from;
    }
    return MM_OK;
}

/** The column pass. */
static mm_status run_across(mm_resampler *s, const job *j)
{
    const mm_axis *a = &s->across;
    const mm_pixels *p = j->pixels;
    int64_t group = p->channels * MM_LANES; /* a pixel of each row */
    int64_t first_byte = a->from * p->channels;
    int64_t in_bytes = (a->to - a->from) * p->channels;
    int64_t out_bytes = a->n * p->channels;
    uint8_t *narrow = s->narrow.memory;
    /* Kernels may read one more pixel; the way back takes 16 bytes at once. */
    MM_TRY(reserve(&s->wide, in_bytes * MM_LANES + group));
    MM_TRY(reserve(&s->slim, (out_bytes + 16) * MM_LANES));

    for (int64_t done = 0; done < j->n_rows; done += MM_LANES) {
        const uint8_t *in[MM_LANES];
        uint8_t *out[MM_LANES];
        for (int r = 0; r < MM_LANES; r++) {
            /* Lanes beyond the last row do that one again. */
            int64_t row = done + r < j->n_rows ? done + r : j->n_rows - 1;
            in[r] = p->first + (j->row + row) * p->stride_bytes + first_byte;
            out[r] = narrow + row * j->stride;
        }
        mm_rows_to_block(in, in_bytes, s->wide.memory);
        for (int64_t x = 0; x < a->n; x++)
            s->weigh(a, x,
                     (uint8_t *)s->wide.memory +
                         (a->taps[x].first - a->from) * group,
                     group, group, (uint8_t *)s->slim.memory + x * group);
        mm_block_to_rows(s->slim.memory, out_bytes, out);
    }
    return MM_OK;
}

static void copy_across(const mm_resampler *s, const job *j)
{
    const mm_pixels *p = j->pixels;
    for (int64_t r = 0; r < j->n_rows; r++)
        memcpy((uint8_t *)s->narrow.memory + r * j->stride,
               p->first + (j->row + r) * p->stride_bytes +
                   j->window->left * p->channels,
               (size_t)(j->window->width * p->channels));
}

/** The row pass. */
static mm_status run_down(mm_resampler *s, const job *j, int64_t row_bytes,
                          uint8_t *out)
{
    const mm_axis *a = &s->down;
    const uint8_t *narrow = s->narrow.memory;
    MM_TRY(reserve(&s->last, row_bytes + MM_LANES));
    for (int64_t y = 0; y < a->n; y++, out += row_bytes) {
        /* What is written behind a row the next one overwrites. */
        uint8_t *to = (a->n - y) * row_bytes >= row_bytes + MM_LANES
                          ? out
                          : s->last.memory;
        s->weigh(a, y, narrow + (a->taps[y].first - j->row) * j->stride,
                 j->stride, row_bytes, to);
        if (to != out)
            memcpy(out, to, (size_t)row_bytes);
    }
    return MM_OK;
}

mm_status mm_resample(mm_resampler *resampler, const mm_pixels *pixels,
                      const mm_window *window, uint8_t *out)
{
    job j;
    MM_ASSERT(pixels->channels >= 1 && pixels->channels <= 4);
    MM_TRY(plan(resampler, pixels, window, &j));
    int64_t row_bytes = window->width * pixels->channels;
    j.stride = row_bytes + MM_LANES;
    /* A kernel may read one row more than it needs. */
    MM_TRY(reserve(&resampler->narrow, (j.n_rows + 1) * j.stride));
    if (j.across)
        MM_TRY(run_across(resampler, &j));
    else
        copy_across(resampler, &j);
    if (j.down)
        return run_down(resampler, &j, row_bytes, out);
    for (int64_t y = 0; y < window->height; y++)
        memcpy(out + y * row_bytes,
               (uint8_t *)resampler->narrow.memory + y * j.stride,
               (size_t)row_bytes);
    return MM_OK;
}

static int32_t read_16(const uint8_t *at)
{
    return at[0] | at[1] << 8;
}

/** Pillow's ROUND_UP: halves away from zero. */
static int32_t rounded(double value)
{
    return (int32_t)(value >= 0.0 ? floor(value + 0.5) : -floor(-value + 0.5));
}

static void run_across_wide(const mm_resampler *s, const job *j,
                            int32_t *narrow)
{
    const mm_axis *a = &s->across;
    for (int64_t r = 0; r < j->n_rows; r++) {
        const uint8_t *in =
            j->pixels->first + (j->row + r) * j->pixels->stride_bytes;
        for (int64_t x = 0; x < j->window->width; x++) {
            if (!j->across) {
                *narrow++ = read_16(in + 2 * (j->window->left + x));
                continue;
            }
            const double *weights = a->exact + x * a->stride;
            double sum = 0.0;
            for (int64_t tap = 0; tap < a->taps[x].n; tap++)
                sum +=
                    read_16(in + 2 * (a->taps[x].first + tap)) * weights[tap];
            *narrow++ = rounded(sum);
        }
    }
}

mm_status mm_resample_wide(mm_resampler *resampler, const mm_pixels *pixels,
                           const mm_window *window, int32_t *out)
{
    job j;
    MM_ASSERT(pixels->channels == 2);
    MM_TRY(plan(resampler, pixels, window, &j));
    MM_TRY(reserve(&resampler->narrow,
                   j.n_rows * window->width * (int64_t)sizeof(int32_t)));
    int32_t *narrow = resampler->narrow.memory;
    run_across_wide(resampler, &j, narrow);
    if (!j.down) {
        memcpy(out, narrow,
               (size_t)(window->height * window->width) * sizeof *out);
        return MM_OK;
    }
    for (int64_t y = 0; y < window->height; y++) {
        const double *weights =
            resampler->down.exact + y * resampler->down.stride;
        const int32_t *in =
            narrow + (resampler->down.taps[y].first - j.row) * window->width;
        for (int64_t x = 0; x < window->width; x++) {
            double sum = 0.0;
            for (int64_t tap = 0; tap < resampler->down.taps[y].n; tap++)
                sum += in[tap * window->width + x] * weights[tap];
            *out++ = rounded(sum);
        }
    }
    return MM_OK;
}
