/* What attention and its gradient share on the CPU: padded sizes, packing, and
 * products of blocks of tiles. */

#include "kernels/cpu/attention.h"

mm_cpu_heads MM_CPU(heads)(bool causal, int64_t n_tokens, int64_t width,
                           int64_t n_heads)
{
    mm_cpu_heads h = {.n_tokens = n_tokens,
                      .width = width,
                      .n_heads = n_heads,
                      .causal = causal};
    h.head_width = n_heads ? width / n_heads : 0;
    h.keys = mm_round_up(n_tokens, MM_TILE_COLS);
    h.cols = mm_round_up(h.head_width, MM_TILE_COLS);
    h.rows = mm_min_i64(n_tokens, MM_CPU_QUERY_ROWS);
    return h;
}

int64_t MM_CPU(attention_scratch)(bool gradient, int64_t n_tokens,
                                  int64_t head_width)
{
    mm_cpu_heads h = MM_CPU(heads)(false, n_tokens, head_width, 1);
    int64_t n_elems = h.keys * head_width; /* k' */
    if (gradient) {
        n_elems += h.keys * head_width;   /* v'                */
        n_elems += 3 * n_tokens * h.cols; /* k, dk, dv         */
        n_elems += 2 * h.rows * h.keys;   /* scores, dscores   */
        n_elems += 3 * h.rows * h.cols;   /* q, dout, dq       */
    } else {
        n_elems += n_tokens * h.cols;          /* v                 */
        n_elems += h.rows * (h.keys + h.cols); /* scores, out    */
    }
    /* Each starts on a whole vector. */
    return (n_elems + 10 * MM_VEC) * (int64_t)sizeof(float);
}

void MM_CPU(pack_head)(float *packed, const float *x, int64_t ld,
                       int64_t n_rows, int64_t head_width)
{
    for (int64_t j = 0; j < head_width; j += MM_TILE_COLS)
        MM_CPU(pack_cols)
    (packed + j * n_rows, x + j, ld,
     (int)mm_min_i64(MM_TILE_COLS, head_width - j), MM_TILE_COLS, n_rows);
}

void MM_CPU(pack_head_transposed)(float *packed, const float *x, int64_t ld,
                                  int64_t n_rows, int64_t head_width)
{
    for (int64_t i = 0; i < n_rows; i += MM_TILE_COLS)
        MM_CPU(pack_rows)
    (packed + i * head_width, x + i * ld, ld,
     (int)mm_min_i64(MM_TILE_COLS, n_rows - i), MM_TILE_COLS, head_width);
}

void MM_CPU(block_product)(float *c, int64_t ldc, const float *a, int64_t a_ld,
                           const float *b, int64_t n_rows, int64_t n_cols,
                           int64_t n_k, bool add)
{
    for (int64_t j = 0; j < n_cols; j += MM_TILE_COLS)
        for (int64_t i = 0; i < n_rows; i += MM_TILE_ROWS)
            MM_CPU(tile_rows)
    ((int)mm_min_i64(MM_TILE_ROWS, n_rows - i), a_ld, n_k, a + i * a_ld,
     b + j * n_k, c + i * ldc + j, ldc, add);
}

void MM_CPU(block_product_transposed)(float *c, int64_t ldc, const float *a,
                                      int64_t a_ld, const float *b,
                                      int64_t n_rows, int64_t n_cols,
                                      int64_t n_k)
{
    for (int64_t j = 0; j < n_cols; j += MM_TILE_COLS)
        for (int64_t i = 0; i < n_rows; i += MM_TILE_ROWS)
            MM_CPU(tile_cols)
    ((int)mm_min_i64(MM_TILE_ROWS, n_rows - i), a_ld, n_k, a + i, b + j * n_k,
     c + i * ldc + j, ldc, true);
}
