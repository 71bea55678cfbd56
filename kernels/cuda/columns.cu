#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

/** N columns a lane. */
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
