/* Matrix products on oneDNN, divided among threads, with bias, residual and
 * activation applied to the sums. */

#include "kernels/cpu/product.h"

#include "kernels/cpu/column_sums.h"
#include "kernels/cpu/elementary.h"

#include <dnnl.h>
#include <omp.h>

/*
 * The sums are oneDNN's. Each thread takes a share of the rows (of the columns,
 * where those are more), has the library multiply it, and finishes the sums;
 * all at once, or, where a transport must move meanwhile, a panel at a time.
 * Called inside a team, the library uses one thread. How it orders a sum
 * depends on the panel's size, and so the last bits on the number of threads.
 */
enum {
    PANEL_WORK = 1 << 29, /* multiply-adds, some 10 ms: then we poll */
    PANEL_MIN_ROWS = 512, /* packing b again for fewer costs too much */
    SHARE_MULTIPLE = 16   /* whole register tiles                     */
};

/** Part of the product. */
typedef struct panel {
    int64_t row, n_rows, col, n_cols;
} panel;

static float *sums_of(const mm_cpu_product *p)
{
    return p->epilogue == MM_CPU_ACTIVATE && p->pre ? p->pre : p->c;
}

static dnnl_status_t multiply(const mm_cpu_product *p, const panel *at)
{
    bool transpose_a = p->a_k != 1, transpose_b = p->b_col != 1;
    bool onto = p->accumulate || p->addend == p->c;
    /* The stride of a matrix of one row has no meaning, but is checked. */
    int64_t lda = transpose_a ? p->a_k : mm_max_i64(p->a_row, p->k);
    int64_t ldb = transpose_b ? p->b_col : mm_max_i64(p->b_k, p->n);
    return dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N',
                      at->n_rows, at->n_cols, p->k, 1.0f,
                      p->a + at->row * p->a_row, lda, p->b + at->col * p->b_col,
                      ldb, onto ? 1.0f : 0.0f,
                      sums_of(p) + at->row * p->n + at->col, p->n);
}

#define FOR_COLS(statement) \
    _Pragma("omp simd") for (int64_t j = 0; j < n; j++) statement

/** One row of a panel's sums on their way out. */
static void finish_row(const mm_cpu_product *p, int64_t row, int64_t col,
                       int64_t n)
{
    int64_t at = row * p->n + col;
    float *sum = sums_of(p) + at, *out = p->c + at;
    const float *bias = p->bias ? p->bias + col : NULL;
    const float *addend =
        p->addend && p->addend != p->c ? p->addend + at : NULL;
    const bool quick = p->activation == MM_QUICK_GELU;
    if (bias && addend) {
        FOR_COLS(sum[j] += bias[j] + addend[j];)
    } else if (bias) {
        FOR_COLS(sum[j] += bias[j];)
    } else if (addend) {
        FOR_COLS(sum[j] += addend[j];)
    }
    if (p->epilogue == MM_CPU_ACTIVATE) {
        if (quick)
            FOR_COLS(out[j] = mm_quick_gelu(sum[j]);)
        else
            FOR_COLS(out[j] = mm_gelu(sum[j]);)
    } else if (p->epilogue == MM_CPU_ACTIVATION_GRAD) {
        const float *pre = p->pre + at;
        if (quick)
            FOR_COLS(out[j] *= mm_quick_gelu_slope(pre[j]);)
        else
            FOR_COLS(out[j] *= mm_gelu_slope(pre[j]);)
    }
}

/** A thread's share of `n` rows or columns, in whole register tiles. */
static void share_of(int64_t n, int thread, int n_threads, int64_t *lo,
                     int64_t *count)
{
    int64_t n_tiles = mm_ceil_div(n, SHARE_MULTIPLE);
    *lo = mm_min_i64(n, n_tiles * thread / n_threads * SHARE_MULTIPLE);
    *count =
        mm_min_i64(n, n_tiles * (thread + 1) / n_threads * SHARE_MULTIPLE) -
        *lo;
}

/** Inside a team: this thread's share, panel after panel. */
static dnnl_status_t compute_share(mm_stream *stream, const mm_cpu_product *p)
{
    panel share = {0, p->m, 0, p->n};
    int thread = omp_get_thread_num(), n_threads = omp_get_num_threads();
    if (p->m >= p->n)
        share_of(p->m, thread, n_threads, &share.row, &share.n_rows);
    else
        share_of(p->n, thread, n_threads, &share.col, &share.n_cols);
    bool unfinished = p->bias || p->addend || p->epilogue != MM_CPU_PLAIN;
    int64_t row_work = mm_max_i64(share.n_cols * p->k, 1);
    int64_t most_rows = stream->poll
                            ? mm_max_i64(PANEL_WORK / row_work, PANEL_MIN_ROWS)
                            : mm_max_i64(share.n_rows, 1);
    int64_t n_panels = mm_max_i64(mm_ceil_div(share.n_rows, most_rows), 1);
    int64_t panel_rows =
        mm_round_up(mm_ceil_div(share.n_rows, n_panels), SHARE_MULTIPLE);
    int64_t end = share.row + share.n_rows, done = 0;
    for (panel at = share; at.n_cols > 0 && at.row < end;
         at.row += panel_rows) {
        at.n_rows = mm_min_i64(panel_rows, end - at.row);
        if (p->k > 0) {
            dnnl_status_t status = multiply(p, &at);
            if (status != dnnl_success)
                return status;
        }
        for (int64_t i = 0; unfinished && i < at.n_rows; i++)
            finish_row(p, at.row + i, at.col, at.n_cols);
        mm_cpu_poll(stream, thread, &done, at.n_rows * at.n_cols * p->k);
    }
    return dnnl_success;
}

mm_status MM_CPU(product)(mm_stream *stream, const mm_cpu_product *p)
{
    mm_cpu_stream *cpu = mm_cpu_stream_of(stream);
    if (p->m == 0)
        return MM_OK;
    if (p->a_sums)
        MM_CPU(column_sums)
    (stream, p->a_sums, p->a, p->a_k, p->accumulate, p->k, p->m);
    if (p->n == 0)
        return MM_OK;
    if (p->k == 0 && !p->accumulate && p->addend != p->c)
        memset(sums_of(p), 0, (size_t)(p->m * p->n) * sizeof(float));
    int team = mm_cpu_team(
        cpu, (int64_t)((double)p->m * (double)p->n * (double)p->k / 16.0));
    dnnl_status_t worst = dnnl_success;
    /* OpenMP does not call a team of one parallel: without this the library
     * would start a team of its own there. */
    omp_set_num_threads(1);
#pragma omp parallel num_threads(team)
    {
        dnnl_status_t status = compute_share(stream, p);
        if (status != dnnl_success) {
#pragma omp critical
            worst = status;
        }
    }
    return worst == dnnl_success
               ? MM_OK
               : mm_fail(MM_E_DEVICE, "oneDNN: sgemm %lld x %lld x %lld: %d",
                         (long long)p->m, (long long)p->n, (long long)p->k,
                         (int)worst);
}
