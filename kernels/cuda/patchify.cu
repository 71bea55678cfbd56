/* Cutting images into rows of normalised patches, a few pixels per thread in
 * all three channels. */

#include "kernels/cuda/launch.cuh"

enum { PATCHIFY_THREADS = 256 };

namespace
{
struct channel_stats {
    float mean[3], std[3];
};
} // namespace

/* A thread makes N pixels of a patch's row, in all three channels. */
template <int N, typename T>
__global__ void __launch_bounds__(PATCHIFY_THREADS)
    mm_patchify_kernel(T *columns, const uint8_t *images, int64_t n_threads,
                       int image_size, int patch_size, channel_stats stats)
{
    const int64_t i = (int64_t)blockIdx.x * PATCHIFY_THREADS + threadIdx.x;
    if (i >= n_threads)
        return;
    const int area = patch_size * patch_size, grid = image_size / patch_size;
    const int64_t patch = i / (area / N), b = patch / (grid * grid);
    const int at = (int)(i % (area / N)) * N, y = at / patch_size;
    const int in_image = (int)(patch % (grid * grid));
    const int64_t row = b * image_size + in_image / grid * patch_size + y;
    const int col = in_image % grid * patch_size + at % patch_size;
    const uint8_t *pixels = images + 3 * (row * image_size + col);
    T *out = columns + patch * 3 * area + at;
#pragma unroll
    for (int c = 0; c < 3; c++) {
        mm_vec<float, N> x;
#pragma unroll
        for (int k = 0; k < N; k++)
            x.v[k] = ((float)pixels[3 * k + c] / 255.0f - stats.mean[c]) /
                     stats.std[c];
        mm_store_floats<N>(out + c * area, x);
    }
}

template <typename T>
static mm_status patchify(mm_stream *stream, T *columns, const uint8_t *images,
                          int64_t n_images, int64_t image_size,
                          int64_t patch_size, const float *mean,
                          const float *std)
{
    MM_CUDA_REQUIRE("patchify", stream && n_images >= 0 && image_size >= 0);
    MM_CUDA_REQUIRE("patchify", patch_size > 0 && image_size % patch_size == 0);
    if (n_images == 0 || image_size == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("patchify", columns && images && mean && std);
    MM_CUDA_REQUIRE("patchify", image_size <= 32768);
    channel_stats stats;
    for (int c = 0; c < 3; c++) {
        stats.mean[c] = mean[c];
        stats.std[c] = std[c];
    }
    const int size = (int)image_size, patch = (int)patch_size;
    const int64_t n = n_images * image_size * image_size;
    cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    constexpr int N = mm_wide<T>;
    if (patch % N == 0 && mm_fits<N>(columns))
        MM_LAUNCH((mm_patchify_kernel<N, T>),
                  mm_blocks(n / N, PATCHIFY_THREADS), PATCHIFY_THREADS, 0, on,
                  columns, images, n / N, size, patch, stats);
    else if (patch % 2 == 0 && mm_fits<2>(columns))
        MM_LAUNCH((mm_patchify_kernel<2, T>),
                  mm_blocks(n / 2, PATCHIFY_THREADS), PATCHIFY_THREADS, 0, on,
                  columns, images, n / 2, size, patch, stats);
    else
        MM_LAUNCH((mm_patchify_kernel<1, T>), mm_blocks(n, PATCHIFY_THREADS),
                  PATCHIFY_THREADS, 0, on, columns, images, n, size, patch,
                  stats);
    return MM_CUDA(cudaGetLastError(), "patchify of %lld images of %lld pixels",
                   (long long)n_images, (long long)image_size);
}

mm_status mm_cuda_patchify(mm_stream *stream, mm_act *columns,
                           const uint8_t *images, int64_t n_images,
                           int64_t image_size, int64_t patch_size,
                           const float *mean, const float *std)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return patchify(stream, mm_as<T>(columns), images, n_images, image_size,
                        patch_size, mean, std);
    });
}
