#include "kernels/cpu/product.h"

#include "kernels/cpu/elementary.h"

#include <omp.h>

/*
 * Loops, from the outside: column blocks and k ranges whose part of b, packed
 * once by all threads, fits MM_CPU_PACKED_ELEMS; tasks of BLOCK_ROWS x
 * block_cols sums, shared out between the threads; blocks of BLOCK_K, for
 * which a is packed into this thread's panels; tiles.
 */
enum {
    BLOCK_K = 256,
    BLOCK_ROWS = 144, /* a multiple of each MM_TILE_ROWS */
    BLOCK_COLS = 768, /* a multiple of each MM_TILE_COLS */
    MIN_BLOCK_COLS = 192
};
_Static_assert(BLOCK_K *(BLOCK_ROWS + MM_TILE_ROWS) <= MM_CPU_PANEL_ELEMS,
               "a block of a fits its panels");
_Static_assert(BLOCK_ROWS *BLOCK_COLS <= MM_CPU_TILE_ELEMS,
               "a block of sums fits");
_Static_assert(BLOCK_ROWS % MM_TILE_ROWS == 0 &&
                   BLOCK_COLS % MM_TILE_COLS == 0 &&
                   MIN_BLOCK_COLS % MM_TILE_COLS == 0,
               "blocks are whole tiles");

/* Part of the product whose b is packed: columns [col, col + n_cols), k in
 * [k, k + n_k). */
typedef struct part {
    const mm_cpu_product *p;
    int64_t col, n_cols, k, n_k;
    const float *packed;
} part;

/* One task's piece of it, and where its sums go. */
typedef struct block {
    int64_t row, n_rows, col, n_cols;
    float *sums;
    int64_t sums_ld;
    float *panels;
} block;

static void pack_b(float *packed, const mm_cpu_product *p, int64_t col,
                   int64_t n_cols, int64_t k, int64_t n_k)
{
    int64_t n_panels = mm_ceil_div(n_cols, MM_TILE_COLS);
    int64_t n_pieces = mm_ceil_div(n_k, BLOCK_K);
#pragma omp for schedule(static)
    for (int64_t q = 0; q < n_panels * n_pieces; q++) {
        int64_t j = q / n_pieces * MM_TILE_COLS;
        int64_t k0 = q % n_pieces * BLOCK_K;
        int n_valid = (int)mm_min_i64(MM_TILE_COLS, n_cols - j);
        float *dst = packed + j * n_k + k0 * MM_TILE_COLS;
        const float *src = p->b + (k + k0) * p->b_k + (col + j) * p->b_col;
        int64_t n = mm_min_i64(BLOCK_K, n_k - k0);
        if (p->b_k == 1)
            MM_CPU(pack_rows)(dst, src, p->b_col, n_valid, MM_TILE_COLS, n);
        else
            MM_CPU(pack_cols)(dst, src, p->b_k, n_valid, MM_TILE_COLS, n);
    }
}

/* sums[i] (+)= sum over k of panel[k*MM_TILE_ROWS + i]. */
static void panel_sums(float *sums, bool add, const float *panel, int n_rows,
                       int64_t n_k)
{
    enum { PERIOD = 4 * MM_TILE_ROWS, N_VECS = PERIOD / MM_VEC };
    mm_vec total[N_VECS] = {0};
    int64_t k = 0;
    for (; k + 4 <= n_k; k += 4)
        for (int v = 0; v < N_VECS; v++)
            total[v] += *(const mm_vec_unaligned *)(panel + k * MM_TILE_ROWS +
                                                    v * MM_VEC);
    float lanes[PERIOD];
    memcpy(lanes, total, sizeof lanes);
    for (; k < n_k; k++)
        for (int i = 0; i < MM_TILE_ROWS; i++)
            lanes[i] += panel[k * MM_TILE_ROWS + i];
    for (int i = 0; i < n_rows; i++) {
        float sum = (lanes[i] + lanes[i + MM_TILE_ROWS]) +
                    (lanes[i + 2 * MM_TILE_ROWS] + lanes[i + 3 * MM_TILE_ROWS]);
        sums[i] = add ? sums[i] + sum : sum;
    }
}

static void pack_a(const mm_cpu_product *p, const block *at, int64_t k,
                   int64_t n_k)
{
    for (int64_t i = 0; i < at->n_rows; i += MM_TILE_ROWS) {
        int n_valid = (int)mm_min_i64(MM_TILE_ROWS, at->n_rows - i);
        float *dst = at->panels + i * n_k;
        const float *src = p->a + (at->row + i) * p->a_row + k * p->a_k;
        if (p->a_k == 1)
            MM_CPU(pack_rows)(dst, src, p->a_row, n_valid, MM_TILE_ROWS, n_k);
        else
            MM_CPU(pack_cols)(dst, src, p->a_k, n_valid, MM_TILE_ROWS, n_k);
        if (p->a_sums && at->col == 0)
            panel_sums(p->a_sums + at->row + i, p->accumulate || k > 0, dst,
                       n_valid, n_k);
    }
}

/* A statement for each column of a tile. The usual number is a constant, so
 * that the loop becomes a few vectors; each j stands alone. */
#define FOR_COLS(statement)                                                   \
    if (n_cols == MM_TILE_COLS) {                                             \
        _Pragma("omp simd") for (int j = 0; j < MM_TILE_COLS; j++) statement; \
    } else {                                                                  \
        _Pragma("omp simd") for (int j = 0; j < n_cols; j++) statement;       \
    }

/* The sums start from bias and addend, so that they need no pass of their own.
 * Returns whether there was anything. */
static bool start_from(const mm_cpu_product *p, float *sums, int64_t ld,
                       int64_t row, int64_t col, int n_rows, int n_cols)
{
    if (!p->bias && (!p->addend || p->addend == p->c))
        return p->accumulate || p->addend;
    const float *bias = p->bias ? p->bias + col : NULL;
    const float *addend = p->addend ? p->addend + row * p->n + col : NULL;
    for (int i = 0; i < n_rows; i++) {
        float *out = sums + i * ld;
        if (bias && addend)
            FOR_COLS(out[j] = bias[j] + addend[i * p->n + j])
        else if (bias)
            FOR_COLS(out[j] = bias[j])
        else
            FOR_COLS(out[j] = addend[i * p->n + j])
    }
    return true;
}

#define FINISH_ROWS(expression)                     \
    for (int i = 0; i < n_rows; i++) {              \
        const float *sum = sums + i * ld;           \
        const float *x = pre + i * pre_ld;          \
        float *out = p->c + (row + i) * p->n + col; \
        (void)sum;                                  \
        FOR_COLS(out[j] = (expression))             \
    }

static void finish(const mm_cpu_product *p, const float *sums, int64_t ld,
                   int64_t row, int64_t col, int n_rows, int n_cols)
{
    const bool quick = p->activation == MM_QUICK_GELU;
    const bool grad = p->epilogue == MM_CPU_ACTIVATION_GRAD;
    const float *pre = grad ? p->pre + row * p->n + col : sums;
    const int64_t pre_ld = grad ? p->n : ld;
    if (!grad && quick)
        FINISH_ROWS(mm_quick_gelu(x[j]))
    else if (!grad)
        FINISH_ROWS(mm_gelu(x[j]))
    else if (quick)
        FINISH_ROWS(sum[j] * mm_quick_gelu_slope(x[j]))
    else
        FINISH_ROWS(sum[j] * mm_gelu_slope(x[j]))
}

/* A tile at the edge is computed whole, beside its place. */
static void edge_tile(float *sums, int64_t ld, int n_rows, int n_cols, bool add,
                      const float *a, const float *b, int64_t n_k)
{
    float whole[MM_TILE_ROWS * MM_TILE_COLS];
    MM_CPU(tile_packed)(n_k, a, b, whole, MM_TILE_COLS, false);
    for (int i = 0; i < n_rows; i++) {
        float *out = sums + i * ld;
        const float *sum = whole + i * MM_TILE_COLS;
        for (int j = 0; j < n_cols; j++)
            out[j] = add ? out[j] + sum[j] : sum[j];
    }
}

static void compute_block(const part *whole, const block *at)
{
    const mm_cpu_product *p = whole->p;
    for (int64_t k = 0; k < whole->n_k; k += BLOCK_K) {
        int64_t n_k = mm_min_i64(BLOCK_K, whole->n_k - k);
        bool first = whole->k + k == 0;
        bool last = whole->k + k + n_k == p->k;
        pack_a(p, at, whole->k + k, n_k);
        for (int64_t j = 0; j < at->n_cols; j += MM_TILE_COLS) {
            const float *b = whole->packed +
                             (at->col - whole->col + j) * whole->n_k +
                             k * MM_TILE_COLS;
            int n_cols = (int)mm_min_i64(MM_TILE_COLS, at->n_cols - j);
            for (int64_t i = 0; i < at->n_rows; i += MM_TILE_ROWS) {
                int n_rows = (int)mm_min_i64(MM_TILE_ROWS, at->n_rows - i);
                float *sums = at->sums + i * at->sums_ld + j;
                bool add =
                    !first || start_from(p, sums, at->sums_ld, at->row + i,
                                         at->col + j, n_rows, n_cols);
                if (n_rows == MM_TILE_ROWS && n_cols == MM_TILE_COLS)
                    MM_CPU(tile_packed)
                (n_k, at->panels + i * n_k, b, sums, at->sums_ld, add);
                else edge_tile(sums, at->sums_ld, n_rows, n_cols, add,
                               at->panels + i * n_k, b, n_k);
                if (last && p->epilogue != MM_CPU_PLAIN)
                    finish(p, sums, at->sums_ld, at->row + i, at->col + j,
                           n_rows, n_cols);
            }
        }
    }
}

/* Columns of a task: wide, to pack a seldom, unless threads would idle. */
static int64_t block_cols_of(int64_t n_row_blocks, int64_t n_cols,
                             int n_threads)
{
    int64_t cols = BLOCK_COLS;
    while (n_threads > 1 && cols > MIN_BLOCK_COLS &&
           n_row_blocks * mm_ceil_div(n_cols, cols) < 8 * n_threads)
        cols /= 2;
    return cols;
}

/* Inside a team. The next part may be packed when all have left this one. */
static void compute_part(mm_stream *stream, const part *whole, float *panels)
{
    const mm_cpu_product *p = whole->p;
    int64_t n_row_blocks = mm_ceil_div(p->m, BLOCK_ROWS);
    int64_t rows = mm_round_up(mm_ceil_div(p->m, n_row_blocks), MM_TILE_ROWS);
    int64_t cols =
        block_cols_of(n_row_blocks, whole->n_cols, omp_get_num_threads());
    int64_t n_col_blocks = mm_ceil_div(whole->n_cols, cols);
    int64_t done = 0;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < n_row_blocks * n_col_blocks; task++) {
        block at = {.row = task / n_col_blocks * rows,
                    .col = whole->col + task % n_col_blocks * cols,
                    .panels = panels};
        at.n_rows = mm_min_i64(rows, p->m - at.row);
        at.n_cols = mm_min_i64(cols, whole->col + whole->n_cols - at.col);
        if (at.n_rows <= 0)
            continue;
        float *own = p->epilogue == MM_CPU_ACTIVATE && p->pre ? p->pre : p->c;
        at.sums = own + at.row * p->n + at.col;
        at.sums_ld = p->n;
        if (p->epilogue == MM_CPU_ACTIVATION_GRAD) {
            /* c may be pre, which is read last. */
            at.sums = panels + MM_CPU_PANEL_ELEMS;
            at.sums_ld = mm_round_up(at.n_cols, MM_TILE_COLS);
        }
        compute_block(whole, &at);
        mm_cpu_poll(stream, omp_get_thread_num(), &done,
                    at.n_rows * at.n_cols * whole->n_k);
    }
}

/* No terms: what the sums start from is all there is. */
static void empty_sums(const mm_cpu_product *p)
{
    for (int64_t i = 0; i < p->m && !p->accumulate; i++) {
        if (p->a_sums)
            p->a_sums[i] = 0.0f;
        float *sums = p->epilogue == MM_CPU_ACTIVATE && p->pre ? p->pre : p->c;
        for (int64_t j = 0; j < p->n; j++) {
            float sum = p->bias ? p->bias[j] : 0.0f;
            sum += p->addend ? p->addend[i * p->n + j] : 0.0f;
            if (p->epilogue == MM_CPU_ACTIVATION_GRAD)
                p->c[i * p->n + j] = 0.0f;
            else
                sums[i * p->n + j] = sum;
        }
        if (p->epilogue == MM_CPU_ACTIVATE)
            finish(p, sums + i * p->n, p->n, i, 0, 1, (int)p->n);
    }
}

void MM_CPU(product)(mm_stream *stream, const mm_cpu_product *p)
{
    mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    if (p->m == 0)
        return;
    if (p->k == 0) {
        empty_sums(p);
        return;
    }
    if (p->n == 0) {
        return;
    }
    /* A part is as much of k as fits with a useful number of columns; where
     * the sums wait in a thread's own block, all of k. */
    int64_t k_part = p->k;
    int64_t n_part = MM_CPU_PACKED_ELEMS / p->k / MM_TILE_COLS * MM_TILE_COLS;
    int64_t n_useful =
        mm_min_i64(mm_round_up(p->n, BLOCK_COLS), 4 * BLOCK_COLS);
    if (n_part < n_useful && p->epilogue != MM_CPU_ACTIVATION_GRAD) {
        n_part = n_useful;
        k_part = MM_CPU_PACKED_ELEMS / n_part / BLOCK_K * BLOCK_K;
    }
    MM_ASSERT(n_part > 0);
    int n_threads =
        mm_cpu_team(cpu, (int64_t)((double)p->m * p->n * p->k / 16.0));
#pragma omp parallel num_threads(n_threads)
    {
        float *panels =
            cpu->panels + omp_get_thread_num() *
                              (int64_t)(MM_CPU_PANEL_ELEMS + MM_CPU_TILE_ELEMS);
        for (int64_t col = 0; col < p->n; col += n_part)
            for (int64_t k = 0; k < p->k; k += k_part) {
                part whole = {.p = p, .col = col, .k = k};
                whole.n_cols = mm_min_i64(n_part, p->n - col);
                whole.n_k = mm_min_i64(k_part, p->k - k);
                whole.packed = cpu->packed;
                pack_b(cpu->packed, p, col, whole.n_cols, k, whole.n_k);
                compute_part(stream, &whole, panels);
            }
    }
}
