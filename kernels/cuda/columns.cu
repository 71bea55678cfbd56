#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

/* Parts of the rows that are summed apart, at most. */
enum { MOST_PARTS = 32, LEAST_ROWS = 256 };

/** Sums of each part of the rows: 16 bytes a lane where x allows. */
template <typename T>
static void sum_parts(cudaStream_t on, float *out, const T *x, int64_t x_stride,
                      bool accumulate, int64_t n_rows, int64_t width,
                      int64_t n_parts)
{
    constexpr int N = mm_wide<T>;
    const int64_t rows_a_part = mm_ceil_div(n_rows, n_parts);
    const unsigned parts = (unsigned)n_parts;
    if (mm_fits<N>(x) && width % N == 0 && x_stride % N == 0)
        MM_LAUNCH((mm_column_sums_kernel<T, N>),
                  mm_blocks(width, MM_WARP * N) * parts, MM_COLUMN_THREADS, 0,
                  on, out, x, x_stride, accumulate, n_rows, width, rows_a_part);
    else
        MM_LAUNCH((mm_column_sums_kernel<T>), mm_blocks(width, MM_WARP) * parts,
                  MM_COLUMN_THREADS, 0, on, out, x, x_stride, accumulate,
                  n_rows, width, rows_a_part);
}

template <typename T>
static mm_status column_sums(mm_stream *stream, float *sums, const T *x,
                             int64_t x_stride, bool accumulate, int64_t n_rows,
                             int64_t width)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    if (width == 0)
        return MM_OK;
    float *partials = static_cast<float *>(cuda->partials);
    const int64_t room =
        MM_CUDA_PARTIAL_BYTES / (width * (int64_t)sizeof(float));
    const int64_t n_parts = mm_min_i64(mm_min_i64(MOST_PARTS, room),
                                       mm_ceil_div(n_rows, LEAST_ROWS));
    if (n_parts > 1) {
        sum_parts(cuda->stream, partials, x, x_stride, false, n_rows, width,
                  n_parts);
        MM_LAUNCH((mm_column_sums_kernel<float>), mm_blocks(width, MM_WARP),
                  MM_COLUMN_THREADS, 0, cuda->stream, sums, partials, width,
                  accumulate, n_parts, width, n_parts);
    } else {
        sum_parts(cuda->stream, sums, x, x_stride, accumulate, n_rows, width,
                  1);
    }
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

template <typename T>
__global__ void mm_add_bias_kernel(T *c, const T *bias, const T *addend,
                                   int64_t n_elems, int64_t width)
{
    const int64_t i = (int64_t)blockIdx.x * MM_COLUMN_THREADS + threadIdx.x;
    if (i < n_elems)
        mm_set(c[i], (bias ? mm_float_of(bias[i % width]) : 0.0f) +
                         (addend ? mm_float_of(addend[i]) : 0.0f));
}

template <typename T>
static mm_status add_bias(mm_stream *stream, void *c, const void *bias,
                          const void *addend, int64_t m, int64_t n)
{
    MM_LAUNCH((mm_add_bias_kernel<T>), mm_blocks(m * n, MM_COLUMN_THREADS),
              MM_COLUMN_THREADS, 0, mm_cuda_stream_of(stream)->stream,
              static_cast<T *>(c), static_cast<const T *>(bias),
              static_cast<const T *>(addend), m * n, n);
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
