#include "src/tasks/resample_kernels.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 16 };

/** Memory that grows to the largest use. */
typedef struct scratch {
    void *memory;
    int64_t n_bytes;
} scratch;

struct mm_resampler {
    const mm_resample_kernels *kernels;
    mm_axis across, down;
    scratch narrow; /* after the column pass: [rows][stride]        */
    scratch safe;   /* rows of the input that no one may read past  */
};

mm_status mm_resampler_create_with(const mm_resample_kernels *kernels,
                                   mm_resampler **resampler)
{
    *resampler = calloc(1, sizeof **resampler);
    if (!*resampler)
        return mm_fail(MM_E_MEMORY, "no memory to resize images");
    (*resampler)->kernels = kernels;
    return MM_OK;
}

mm_status mm_resampler_create(mm_resampler **resampler)
{
    const mm_resample_kernels *kernels = mm_resample_kernels_avx2();
    return mm_resampler_create_with(
        kernels ? kernels : mm_resample_kernels_plain(), resampler);
}

void mm_resampler_destroy(mm_resampler **resampler)
{
    if (!*resampler)
        return;
    mm_axis_clear(&(*resampler)->across);
    mm_axis_clear(&(*resampler)->down);
    free((*resampler)->narrow.memory);
    free((*resampler)->safe.memory);
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
        MM_TRY(mm_axis_plan(&s->across, pixels->width, w->full_width, w->left,
                            w->width));
    if (j->down) {
        MM_TRY(mm_axis_plan(&s->down, pixels->height, w->full_height, w->top,
                            w->height));
        j->row = s->down.from;
        j->n_rows = s->down.to - s->down.from;
    }
    return MM_OK;
}

/**
 * Input rows from `row` on as the kernels may read them: where a kernel would
 * read past the last pixel of all, a copy.
 */
static void find_rows(const mm_resampler *s, const job *j, int64_t row, int n,
                      const uint8_t **rows)
{
    const mm_pixels *p = j->pixels;
    int64_t row_bytes = p->width * p->channels;
    int64_t reach = s->across.to * p->channels + MM_READ_BEYOND;
    const uint8_t *end =
        p->first + (p->height - 1) * p->stride_bytes + row_bytes;
    int64_t last = j->row + j->n_rows - 1;
    uint8_t *copy = s->safe.memory;
    for (int r = 0; r < n; r++) {
        int64_t from = row + r < last ? row + r : last;
        rows[r] = p->first + from * p->stride_bytes;
        if (end - rows[r] >= reach)
            continue;
        memcpy(copy, rows[r], (size_t)row_bytes);
        rows[r] = copy;
        copy += row_bytes + MM_READ_BEYOND;
    }
}

/** The column pass. */
static void run_across(const mm_resampler *s, const job *j)
{
    int channels = j->pixels->channels, n = s->kernels->n_rows[channels];
    uint8_t *narrow = s->narrow.memory;
    for (int64_t done = 0; done < j->n_rows; done += n) {
        const uint8_t *in[MOST_ROWS];
        uint8_t *out[MOST_ROWS];
        find_rows(s, j, j->row + done, n, in);
        for (int r = 0; r < n; r++) /* beyond the last row: that row again */
            out[r] =
                narrow +
                (done + r < j->n_rows ? done + r : j->n_rows - 1) * j->stride;
        s->kernels->across(&s->across, channels, in, out);
    }
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

mm_status mm_resample(mm_resampler *s, const mm_pixels *pixels,
                      const mm_window *w, uint8_t *out)
{
    job j;
    MM_ASSERT(pixels->channels >= 1 && pixels->channels <= 4);
    MM_TRY(plan(s, pixels, w, &j));
    int64_t row_bytes = w->width * pixels->channels;
    j.stride = row_bytes + MM_WRITE_BEYOND;
    /* A kernel may read one row more than it needs. */
    MM_TRY(reserve(&s->narrow, (j.n_rows + 1) * j.stride + MM_READ_BEYOND));
    MM_TRY(reserve(&s->safe, MOST_ROWS * (pixels->width * pixels->channels +
                                          MM_READ_BEYOND)));
    if (j.across)
        run_across(s, &j);
    else
        copy_across(s, &j);

    const uint8_t *narrow = s->narrow.memory;
    for (int64_t y = 0; y < w->height; y++, out += row_bytes)
        if (j.down)
            s->kernels->down(&s->down, y,
                             narrow +
                                 (s->down.taps[y].first - j.row) * j.stride,
                             j.stride, row_bytes, out);
        else
            memcpy(out, narrow + y * j.stride, (size_t)row_bytes);
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

mm_status mm_resample_wide(mm_resampler *s, const mm_pixels *pixels,
                           const mm_window *w, int32_t *out)
{
    job j;
    MM_ASSERT(pixels->channels == 2);
    MM_TRY(plan(s, pixels, w, &j));
    MM_TRY(reserve(&s->narrow, j.n_rows * w->width * (int64_t)sizeof(int32_t)));
    int32_t *narrow = s->narrow.memory;
    run_across_wide(s, &j, narrow);
    if (!j.down) {
        memcpy(out, narrow, (size_t)(w->height * w->width) * sizeof *out);
        return MM_OK;
    }
    for (int64_t y = 0; y < w->height; y++) {
        const double *weights = s->down.exact + y * s->down.stride;
        const int32_t *in = narrow + (s->down.taps[y].first - j.row) * w->width;
        for (int64_t x = 0; x < w->width; x++) {
            double sum = 0.0;
            for (int64_t tap = 0; tap < s->down.taps[y].n; tap++)
                sum += in[tap * w->width + x] * weights[tap];
            *out++ = rounded(sum);
        }
    }
    return MM_OK;
}
