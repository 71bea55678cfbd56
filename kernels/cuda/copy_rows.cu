/* Copying rows between matrices of different strides, one warp per row. */

#include "kernels/cuda/launch.cuh"

template <int N, typename T>
__global__ void mm_copy_rows_kernel(T *to, int64_t to_stride, const T *from,
                                    int64_t from_stride, int64_t n_rows,
                                    int64_t width)
{
    const int64_t row = mm_warp_row();
    if (row >= n_rows)
        return;
    for (int64_t j = mm_lane() * N; j < width; j += MM_WARP * N)
        mm_store<N>(to + row * to_stride + j,
                    mm_load<N>(from + row * from_stride + j));
}

template <typename T>
static mm_status copy_rows(mm_stream *stream, T *to, int64_t to_stride,
                           const T *from, int64_t from_stride, int64_t n_rows,
                           int64_t width)
{
    MM_CUDA_REQUIRE("copy_rows", stream && n_rows >= 0 && width >= 0);
    MM_CUDA_REQUIRE("copy_rows", n_rows == 0 || (to && from));
    MM_CUDA_REQUIRE("copy_rows", to_stride >= width && from_stride >= width);
    if (n_rows == 0 || width == 0)
        return MM_OK;
    constexpr int N = mm_wide<T>;
    const bool wide = mm_fits<N>(to, from) && width % N == 0 &&
                      to_stride % N == 0 && from_stride % N == 0;
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    const unsigned grid = mm_blocks(n_rows, MM_ROWS_PER_BLOCK);
    if (wide)
        MM_LAUNCH((mm_copy_rows_kernel<N, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, to, to_stride, from,
                  from_stride, n_rows, width);
    else
        MM_LAUNCH((mm_copy_rows_kernel<1, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, to, to_stride, from,
                  from_stride, n_rows, width);
    return MM_CUDA(cudaGetLastError(), "copy_rows of %lld rows of %lld",
                   (long long)n_rows, (long long)width);
}

mm_status mm_cuda_copy_rows(mm_stream *stream, mm_act *to, int64_t to_stride,
                            const mm_act *from, int64_t from_stride,
                            int64_t n_rows, int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return copy_rows(stream, mm_as<T>(to), to_stride, mm_as<T>(from),
                         from_stride, n_rows, width);
    });
}
