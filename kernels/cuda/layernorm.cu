/* Layer norm, one warp per row: one kernel keeps the row in registers, another
 * takes any width and alignment. */

#include "kernels/cuda/launch.cuh"

namespace
{
template <typename T> struct layernorm_arguments {
    T *y;
    float *mean, *rstd;
    const T *x;
    int64_t x_stride;
    const float *gamma, *beta;
    float eps;
    int64_t n_rows, width;
};

template <typename T>
__device__ void keep_statistics(const layernorm_arguments<T> &a, int64_t row,
                                float mean, float rstd)
{
    if (mm_lane() != 0)
        return;
    if (a.mean)
        a.mean[row] = mean;
    if (a.rstd)
        a.rstd[row] = rstd;
}
} // namespace

/* One warp per row, which stays in registers: N elements per access, at most
 * CHUNKS accesses per lane. */
template <int N, int CHUNKS, typename T>
__global__ void __launch_bounds__(MM_ROWS_PER_BLOCK *MM_WARP)
    mm_layernorm_kernel(layernorm_arguments<T> a)
{
    const int64_t row = mm_warp_row();
    if (row >= a.n_rows)
        return;
    const T *x = a.x + row * a.x_stride;
    mm_vec<float, N> part[CHUNKS];
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int j = (c * MM_WARP + mm_lane()) * N;
        if (j < a.width)
            part[c] = mm_load_floats<N>(x + j);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum += j < a.width ? part[c].v[k] : 0.0f;
    }
    const float mean = mm_warp_sum(sum) / (float)a.width;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int j = (c * MM_WARP + mm_lane()) * N;
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float d = part[c].v[k] - mean;
            squares += j < a.width ? d * d : 0.0f;
        }
    }
    const float rstd =
        1.0f / sqrtf(mm_warp_sum(squares) / (float)a.width + a.eps);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int j = (c * MM_WARP + mm_lane()) * N;
        if (j >= a.width)
            break;
        const mm_vec<float, N> g = mm_load_floats<N>(a.gamma + j);
        const mm_vec<float, N> b = mm_load_floats<N>(a.beta + j);
#pragma unroll
        for (int k = 0; k < N; k++)
            part[c].v[k] = (part[c].v[k] - mean) * rstd * g.v[k] + b.v[k];
        mm_store_floats<N>(a.y + row * a.width + j, part[c]);
    }
    keep_statistics(a, row, mean, rstd);
}

/* Rows of any width and alignment, read three times. */
template <typename T>
__global__ void __launch_bounds__(MM_ROWS_PER_BLOCK *MM_WARP)
    mm_layernorm_any_kernel(layernorm_arguments<T> a)
{
    const int64_t row = mm_warp_row();
    if (row >= a.n_rows)
        return;
    const T *x = a.x + row * a.x_stride;
    float sum = 0.0f, squares = 0.0f;
    for (int64_t j = mm_lane(); j < a.width; j += MM_WARP)
        sum += mm_float_of(x[j]);
    const float mean = mm_warp_sum(sum) / (float)a.width;
    for (int64_t j = mm_lane(); j < a.width; j += MM_WARP) {
        const float d = mm_float_of(x[j]) - mean;
        squares += d * d;
    }
    const float rstd =
        1.0f / sqrtf(mm_warp_sum(squares) / (float)a.width + a.eps);
    for (int64_t j = mm_lane(); j < a.width; j += MM_WARP)
        mm_set(a.y[row * a.width + j],
               (mm_float_of(x[j]) - mean) * rstd * a.gamma[j] + a.beta[j]);
    keep_statistics(a, row, mean, rstd);
}

template <int ELEMS, typename T>
static void launch_width(cudaStream_t on, const layernorm_arguments<T> &a)
{
    constexpr int N = mm_wide<T>;
    MM_LAUNCH((mm_layernorm_kernel<N, ELEMS / N, T>),
              mm_blocks(a.n_rows, MM_ROWS_PER_BLOCK),
              MM_ROWS_PER_BLOCK * MM_WARP, 0, on, a);
}

/* By the elements that a lane keeps: 8 (to 256 wide), 24 (768), 32 (1024), 40
 * (1280). */
template <typename T>
static void launch(cudaStream_t on, const layernorm_arguments<T> &a)
{
    constexpr int N = mm_wide<T>;
    const bool wide = mm_fits<N>(a.x, a.y) && mm_fits<N>(a.gamma, a.beta) &&
                      a.width % N == 0 &&
                      (a.x_stride % N == 0 || a.n_rows == 1);
    if (!wide || a.width > 40 * MM_WARP)
        MM_LAUNCH((mm_layernorm_any_kernel<T>),
                  mm_blocks(a.n_rows, MM_ROWS_PER_BLOCK),
                  MM_ROWS_PER_BLOCK * MM_WARP, 0, on, a);
    else if (a.width <= 8 * MM_WARP)
        launch_width<8>(on, a);
    else if (a.width <= 24 * MM_WARP)
        launch_width<24>(on, a);
    else if (a.width <= 32 * MM_WARP)
        launch_width<32>(on, a);
    else
        launch_width<40>(on, a);
}

template <typename T>
static mm_status layernorm(mm_stream *stream, const layernorm_arguments<T> &a)
{
    MM_CUDA_REQUIRE("layernorm", stream && a.n_rows >= 0 && a.width >= 0);
    if (a.n_rows == 0 || a.width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("layernorm", a.y && a.x && a.gamma && a.beta);
    MM_CUDA_REQUIRE("layernorm", a.x_stride >= a.width || a.n_rows == 1);
    launch(mm_cuda_stream_of(stream)->stream, a);
    return MM_CUDA(cudaGetLastError(), "layernorm of %lld rows of %lld",
                   (long long)a.n_rows, (long long)a.width);
}

mm_status mm_cuda_layernorm(mm_stream *stream, mm_act *y, float *mean,
                            float *rstd, const mm_act *x, int64_t x_stride,
                            const float *gamma, const float *beta, float eps,
                            int64_t n_rows, int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return layernorm<T>(stream,
                            {mm_as<T>(y), mean, rstd, mm_as<T>(x), x_stride,
                             gamma, beta, eps, n_rows, width});
    });
}
