#ifndef MAGMAX_KERNELS_CPU_ATTENTION_H
#define MAGMAX_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/tile.h"

/*
 * Attention works on one (image, head) at a time and on blocks of at most
 * MM_CPU_QUERY_ROWS query rows, so that the scores of a block stay in cache.
 */
enum { MM_CPU_QUERY_ROWS = 72 };

/** Padded sizes, in elements; keys are padded to whole tiles. */
typedef struct mm_cpu_heads {
    int64_t n_tokens, width, n_heads, head_width;
    int64_t keys, cols; /* n_tokens and head_width, rounded up to tiles */
    int64_t rows;       /* of a block of queries                        */
    bool causal;
} mm_cpu_heads;

mm_cpu_heads MM_CPU(heads)(bool causal, int64_t n_tokens, int64_t width,
                           int64_t n_heads);

/** Bytes that a thread needs. */
int64_t MM_CPU(attention_scratch)(bool gradient, int64_t n_tokens,
                                  int64_t head_width);

/** packed = x, or its transpose, as tiles read it. Shapes: x [n_rows, D], rows
 * `ld` apart; packed [n_rows, cols] or [D, keys] in panels. */
void MM_CPU(pack_head)(float *packed, const float *x, int64_t ld,
                       int64_t n_rows, int64_t head_width);
void MM_CPU(pack_head_transposed)(float *packed, const float *x, int64_t ld,
                                  int64_t n_rows, int64_t head_width);

/** c [n_rows, n_cols] (+)= a b; a row-major, rows a_ld apart; b packed with
 * n_k rows; n_cols is a whole number of tiles. */
void MM_CPU(block_product)(float *c, int64_t ldc, const float *a, int64_t a_ld,
                           const float *b, int64_t n_rows, int64_t n_cols,
                           int64_t n_k, bool add);

/** c [n_rows, n_cols] += a' b; a [n_k, n_rows]; otherwise as block_product. */
void MM_CPU(block_product_transposed)(float *c, int64_t ldc, const float *a,
                                      int64_t a_ld, const float *b,
                                      int64_t n_rows, int64_t n_cols,
                                      int64_t n_k);

/** How many keys query row `i` sees. */
static inline int64_t MM_CPU(visible)(const mm_cpu_heads *h, int64_t i)
{
    return h->causal ? i + 1 : h->n_tokens;
}

/** Mask unseen keys: their scores become -infinity, whose exponential is 0. */
static inline void MM_CPU(mask)(float *score, int64_t n_seen, int64_t n_padded)
{
    for (int64_t j = n_seen; j < n_padded; j++)
        score[j] = -__builtin_inff();
}

#endif
