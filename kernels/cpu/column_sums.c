/* Sums down the columns of a matrix, which are the gradients of biases. */

#include "kernels/cpu/column_sums.h"

void MM_CPU(column_sums)(mm_stream *stream, float *sums, const float *x,
                         int64_t x_stride, bool accumulate, int64_t n_rows,
                         int64_t width)
{
    enum { COLS = 64, ROWS = 64 };
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_rows * width);
    /* Every thread its own columns, rows in order. */
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t col = 0; col < width; col += COLS) {
        int64_t n_cols = mm_min_i64(COLS, width - col);
        float total[COLS] = {0};
        for (int64_t row = 0; row < n_rows; row += ROWS) {
            /* Blocks, so that rounding grows with the root of their number. */
            float part[COLS] = {0};
            int64_t end = mm_min_i64(row + ROWS, n_rows);
            for (int64_t i = row; i < end; i++)
                for (int64_t j = 0; j < n_cols; j++)
                    part[j] += x[i * x_stride + col + j];
            for (int64_t j = 0; j < n_cols; j++)
                total[j] += part[j];
        }
        for (int64_t j = 0; j < n_cols; j++)
            sums[col + j] = accumulate ? sums[col + j] + total[j] : total[j];
    }
}
