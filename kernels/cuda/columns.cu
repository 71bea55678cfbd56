/* Sums down the columns of a matrix, and adding a bias to every row. */

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

/* Of a bias's addition: loads that a thread has under way. */
enum { ROWS_PER_WARP = 4 };

/** N columns per lane. */
template <int N, typename T>
static void launch_sums(const mm_cuda_stream *cuda, float *sums, const T *x,
                        int64_t x_stride, bool accumulate, int64_t n_rows,
                        int64_t width)
{
    float *partials = static_cast<float *>(cuda->partials);
    const mm_column_parts parts = mm_divide_rows<T>(n_rows, width);
    const bool one = parts.n == 1;
    MM_LAUNCH((mm_column_sums_kernel<T, N>),
              (unsigned)parts.n * mm_blocks(width, MM_WARP * N),
              MM_COLUMN_THREADS, 0, cuda->stream, one ? sums : partials, x,
              x_stride, one && accumulate, n_rows, width, parts.rows);
    if (!one)
        mm_add_partials(cuda->stream, sums, partials, accumulate, parts.n,
                        width, width);
}

template <typename T>
static mm_status column_sums(mm_stream *stream, float *sums, const T *x,
                             int64_t x_stride, bool accumulate, int64_t n_rows,
                             int64_t width)
{
    constexpr int N = mm_wide<T>;
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    if (width == 0)
        return MM_OK;
    if (mm_fits<N>(x) && width % N == 0 && x_stride % N == 0)
        launch_sums<N>(cuda, sums, x, x_stride, accumulate, n_rows, width);
    else
        launch_sums<1>(cuda, sums, x, x_stride, accumulate, n_rows, width);
    return MM_CUDA(cudaGetLastError(), "column sums of [%lld, %lld]",
                   (long long)n_rows, (long long)width);
}

mm_status mm_cuda_column_sums(mm_stream *stream, cudaDataType_t type,
                              float *sums, const void *x, int64_t x_stride,
                              bool accumulate, int64_t n_rows, int64_t width)
{
    if (type == CUDA_R_16BF)
        return column_sums(stream, sums, static_cast<const mm_bf16 *>(x),
                           x_stride, accumulate, n_rows, width);
    return column_sums(stream, sums, static_cast<const float *>(x), x_stride,
                       accumulate, n_rows, width);
}

mm_status mm_cuda_bias_grad(mm_stream *stream, float *dbias, const mm_act *dy,
                            int64_t dy_stride, bool accumulate, int64_t n_rows,
                            int64_t width)
{
    if (!dbias)
        return MM_OK;
    return mm_cuda_column_sums(stream, mm_cuda_act_type(stream), dbias, dy,
                               dy_stride, accumulate, n_rows, width);
}

/* A block takes 32 times N columns, a warp ROWS_PER_WARP rows of those; what a
 * thread reads of them is on its way before it stores. c may be addend. */
template <typename T, int N>
__global__ void __launch_bounds__(MM_COLUMN_THREADS)
    mm_add_bias_kernel(T *c, const T *bias, const T *addend, int64_t n_rows,
                       int64_t width, unsigned column_blocks)
{
    const int64_t j =
        ((int64_t)(blockIdx.x % column_blocks) * MM_WARP + mm_lane()) * N;
    const int64_t first =
        ((int64_t)(blockIdx.x / column_blocks) * MM_ROWS_PER_BLOCK +
         threadIdx.x / MM_WARP) *
        ROWS_PER_WARP;
    if (j >= width)
        return;
    const mm_vec<float, N> zero = {};
    const mm_vec<float, N> b = bias ? mm_load_floats<N>(bias + j) : zero;
    mm_vec<float, N> x[ROWS_PER_WARP];
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; i++)
        x[i] = addend && first + i < n_rows
                   ? mm_load_floats<N>(addend + (first + i) * width + j)
                   : zero;
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; i++) {
#pragma unroll
        for (int k = 0; k < N; k++)
            x[i].v[k] += b.v[k];
        if (first + i < n_rows)
            mm_store_floats<N>(c + (first + i) * width + j, x[i]);
    }
}

template <typename T, int N>
static void add_bias_by(cudaStream_t on, T *c, const T *bias, const T *addend,
                        int64_t m, int64_t n)
{
    const unsigned column_blocks = mm_blocks(n, MM_WARP * N);
    MM_LAUNCH((mm_add_bias_kernel<T, N>),
              mm_blocks(m, MM_ROWS_PER_BLOCK * ROWS_PER_WARP) * column_blocks,
              MM_COLUMN_THREADS, 0, on, c, bias, addend, m, n, column_blocks);
}

template <typename T>
static mm_status add_bias(mm_stream *stream, void *to, const void *of_columns,
                          const void *of_all, int64_t m, int64_t n)
{
    constexpr int N = mm_wide<T>;
    const cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    T *c = static_cast<T *>(to);
    const T *bias = static_cast<const T *>(of_columns);
    const T *addend = static_cast<const T *>(of_all);
    if (mm_fits<N>(c, bias, addend) && n % N == 0)
        add_bias_by<T, N>(on, c, bias, addend, m, n);
    else
        add_bias_by<T, 1>(on, c, bias, addend, m, n);
    return MM_CUDA(cudaGetLastError(), "bias of [%lld, %lld]", (long long)m,
                   (long long)n);
}

mm_status mm_cuda_add_bias(mm_stream *stream, cudaDataType_t type, void *c,
                           const void *bias, const void *addend, int64_t m,
                           int64_t n)
{
    return type == CUDA_R_16BF
               ? add_bias<mm_bf16>(stream, c, bias, addend, m, n)
               : add_bias<float>(stream, c, bias, addend, m, n);
}
