#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

/* Parts of the rows that are summed apart, at most. */
enum { MOST_PARTS = 32, LEAST_ROWS = 256 };

template <typename T>
static mm_status column_sums(mm_stream *stream, float *sums, const T *x,
                             bool accumulate, int64_t n_rows, int64_t width)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    if (width == 0)
        return MM_OK;
    float *partials = static_cast<float *>(cuda->partials);
    const int64_t room =
        MM_CUDA_PARTIAL_BYTES / (width * (int64_t)sizeof(float));
    const int64_t n_parts = mm_min_i64(mm_min_i64(MOST_PARTS, room),
                                       mm_ceil_div(n_rows, LEAST_ROWS));
    const unsigned column_blocks = mm_blocks(width, MM_WARP);
    if (n_parts > 1) {
        const int64_t rows_a_part = mm_ceil_div(n_rows, n_parts);
        MM_LAUNCH((mm_column_sums_kernel<T>), column_blocks * (unsigned)n_parts,
                  MM_COLUMN_THREADS, 0, cuda->stream, partials, x, width, false,
                  n_rows, width, rows_a_part);
        MM_LAUNCH((mm_column_sums_kernel<float>), column_blocks,
                  MM_COLUMN_THREADS, 0, cuda->stream, sums, partials, width,
                  accumulate, n_parts, width, n_parts);
    } else {
        MM_LAUNCH((mm_column_sums_kernel<T>), column_blocks, MM_COLUMN_THREADS,
                  0, cuda->stream, sums, x, width, accumulate, n_rows, width,
                  n_rows);
    }
    return MM_CUDA(cudaGetLastError(), "column sums of [%lld, %lld]",
                   (long long)n_rows, (long long)width);
}

mm_status mm_cuda_column_sums(mm_stream *stream, float *sums, const float *x,
                              bool accumulate, int64_t n_rows, int64_t width)
{
    return column_sums(stream, sums, x, accumulate, n_rows, width);
}

mm_status mm_cuda_column_sums_bf16(mm_stream *stream, float *sums,
                                   const mm_bf16 *x, bool accumulate,
                                   int64_t n_rows, int64_t width)
{
    return column_sums(stream, sums, x, accumulate, n_rows, width);
}

__global__ void mm_add_bias_kernel(float *c, const float *bias,
                                   const float *addend, int64_t n_elems,
                                   int64_t width)
{
    const int64_t i = (int64_t)blockIdx.x * MM_COLUMN_THREADS + threadIdx.x;
    if (i < n_elems)
        c[i] = (bias ? bias[i % width] : 0.0f) + (addend ? addend[i] : 0.0f);
}

mm_status mm_cuda_add_bias(mm_stream *stream, float *c, const float *bias,
                           const float *addend, int64_t m, int64_t n)
{
    MM_LAUNCH(mm_add_bias_kernel, mm_blocks(m * n, MM_COLUMN_THREADS),
              MM_COLUMN_THREADS, 0, mm_cuda_stream_of(stream)->stream, c, bias,
              addend, m * n, n);
    return MM_CUDA(cudaGetLastError(), "bias of [%lld, %lld]", (long long)m,
                   (long long)n);
}
