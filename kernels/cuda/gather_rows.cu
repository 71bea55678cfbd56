/* Copying the rows of a matrix that an index names, one warp per row. */

#include "kernels/cuda/launch.cuh"

template <int N, typename T>
__global__ void mm_gather_rows_kernel(T *to, const T *from,
                                      const int64_t *index, int64_t n_rows,
                                      int64_t width)
{
    const int64_t row = mm_warp_row();
    if (row >= n_rows)
        return;
    for (int64_t j = mm_lane() * N; j < width; j += MM_WARP * N)
        mm_store<N>(to + row * width + j,
                    mm_load<N>(from + index[row] * width + j));
}

template <typename T>
static mm_status gather_rows(mm_stream *stream, T *to, const T *from,
                             const int64_t *index, int64_t n_rows,
                             int64_t width)
{
    MM_CUDA_REQUIRE("gather_rows", stream && n_rows >= 0 && width >= 0);
    MM_CUDA_REQUIRE("gather_rows", n_rows == 0 || (to && from && index));
    if (n_rows == 0 || width == 0)
        return MM_OK;
    constexpr int N = mm_wide<T>;
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    const unsigned grid = mm_blocks(n_rows, MM_ROWS_PER_BLOCK);
    if (mm_fits<N>(to, from) && width % N == 0)
        MM_LAUNCH((mm_gather_rows_kernel<N, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, to, from, index, n_rows,
                  width);
    else
        MM_LAUNCH((mm_gather_rows_kernel<1, T>), grid,
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, to, from, index, n_rows,
                  width);
    return MM_CUDA(cudaGetLastError(), "gather_rows of %lld rows of %lld",
                   (long long)n_rows, (long long)width);
}

mm_status mm_cuda_gather_rows(mm_stream *stream, mm_act *to, const mm_act *from,
                              const int64_t *index, int64_t n_rows,
                              int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return gather_rows(stream, mm_as<T>(to), mm_as<T>(from), index, n_rows,
                           width);
    });
}
