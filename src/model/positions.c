/* Positional embeddings for another grid of patches, by PyTorch's antialiased
 * bicubic interpolation. */

#include "src/model/positions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t mm_positions_grid(int64_t n_tokens)
{
    if (n_tokens < 2)
        return 0;
    int64_t grid = (int64_t)(sqrt((double)(n_tokens - 1)) + 0.5);
    return grid * grid == n_tokens - 1 ? grid : 0;
}

/* Keys 1981 with a = -1/2. */
static double cubic(double x)
{
    x = fabs(x);
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    if (x < 2)
        return ((-0.5 * x + 2.5) * x - 4) * x + 2;
    return 0;
}

/** Weights of the inputs for one output place: [from], zero but for a few. */
static void make_weights(int64_t from, int64_t to, int64_t place,
                         double *weights)
{
    double scale = (double)from / (double)to;
    double stretch = scale > 1 ? scale : 1;
    double centre = scale * ((double)place + 0.5), sum = 0;
    for (int64_t i = 0; i < from; i++) {
        weights[i] = cubic(((double)i + 0.5 - centre) / stretch);
        sum += weights[i];
    }
    for (int64_t i = 0; i < from; i++)
        weights[i] /= sum;
}

/** out[width] = sum of weights[i] * in[i * stride ...]. */
static void mix(const double *weights, int64_t n, const double *in,
                int64_t stride, int64_t width, double *out)
{
    memset(out, 0, (size_t)width * sizeof *out);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; weights[i] != 0 && c < width; c++)
            out[c] += weights[i] * in[i * stride + c];
}

/* Rows first, then columns, one output row of the grid at a time. */
static void resize_grid(const double *in, int64_t from, int64_t to,
                        int64_t width, double *weights, double *row,
                        double *token, float *out)
{
    for (int64_t y = 0; y < to; y++) {
        make_weights(from, to, y, weights);
        mix(weights, from, in, from * width, from * width, row);
        for (int64_t x = 0; x < to; x++) {
            make_weights(from, to, x, weights);
            mix(weights, from, row, width, width, token);
            for (int64_t c = 0; c < width; c++)
                *out++ = (float)token[c];
        }
    }
}

mm_status mm_positions_resize(const float *in, int64_t from_grid,
                              int64_t to_grid, int64_t width, float *out)
{
    int64_t n_in = from_grid * from_grid * width;
    if (from_grid == to_grid) {
        memcpy(out, in, (size_t)(n_in + width) * sizeof *out);
        return MM_OK;
    }
    double *scratch =
        malloc((size_t)(n_in + from_grid + from_grid * width + width) *
               sizeof *scratch);
    if (!scratch)
        return mm_fail(MM_E_MEMORY,
                       "no memory to resize positional embeddings");
    double *weights = scratch + n_in, *row = weights + from_grid;
    memcpy(out, in, (size_t)width * sizeof *out);
    for (int64_t i = 0; i < n_in; i++)
        scratch[i] = (double)in[width + i];
    resize_grid(scratch, from_grid, to_grid, width, weights, row,
                row + from_grid * width, out + width);
    free(scratch);
    return MM_OK;
}

void mm_positions_log(mm_log *log, int64_t from, int64_t to)
{
    long long from_grid = (long long)mm_positions_grid(from);
    long long to_grid = (long long)mm_positions_grid(to);
    mm_log_line(log,
                "positional embeddings resized from %lld x %lld to %lld x %lld "
                "patches (bicubic, antialiased)",
                from_grid, from_grid, to_grid, to_grid);
}
