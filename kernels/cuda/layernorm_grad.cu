#include "kernels/cuda/columns.cuh"

/* Blocks whose sums of dgamma and dbeta are kept apart: the same on every GPU,
 * so that the bits are. */
enum { GRAD_BLOCKS = 256, GRAD_THREADS = MM_ROWS_A_BLOCK * MM_WARP };

int64_t mm_cuda_layernorm_scratch(int64_t width)
{
    return GRAD_BLOCKS * 2 * width * (int64_t)sizeof(float);
}

namespace
{
template <typename T> struct layernorm_grad_arguments {
    T *dx;
    float *partials; /* [n_blocks][dgamma, dbeta][width] */
    const T *residual, *dy, *x;
    int64_t x_stride;
    const float *mean, *rstd, *gamma;
    int64_t n_rows, width;
};
} // namespace

/* With xhat = (x - mean) rstd and g = dy gamma, both averaged over the row:
 * dx = rstd (g - mean(g) - xhat mean(g xhat)). One warp a row, which stays in
 * registers, as do the lane's columns of dgamma and dbeta. */
template <int N, int CHUNKS, typename T>
__global__ void __launch_bounds__(GRAD_THREADS)
    mm_layernorm_grad_kernel(layernorm_grad_arguments<T> a)
{
    MM_DYNAMIC_SHARED(float, shared); /* [dgamma, dbeta][width] */
    mm_vec<float, N> dgamma[CHUNKS] = {}, dbeta[CHUNKS] = {};
    const float inv_width = 1.0f / (float)a.width;
    for (int64_t row = mm_warp_row(); row < a.n_rows;
         row += (int64_t)gridDim.x * MM_ROWS_A_BLOCK) {
        const float mean = a.mean[row], rstd = a.rstd[row];
        mm_vec<float, N> xhat[CHUNKS], g[CHUNKS];
        float sum_g = 0.0f, sum_gx = 0.0f;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int j = (c * MM_WARP + mm_lane()) * N;
            if (j >= a.width)
                continue;
            xhat[c] = mm_load_floats<N>(a.x + row * a.x_stride + j);
            g[c] = mm_load_floats<N>(a.dy + row * a.width + j);
            const mm_vec<float, N> gamma = mm_load_floats<N>(a.gamma + j);
#pragma unroll
            for (int k = 0; k < N; k++) {
                xhat[c].v[k] = (xhat[c].v[k] - mean) * rstd;
                dgamma[c].v[k] += g[c].v[k] * xhat[c].v[k];
                dbeta[c].v[k] += g[c].v[k];
                g[c].v[k] *= gamma.v[k];
                sum_g += g[c].v[k];
                sum_gx += g[c].v[k] * xhat[c].v[k];
            }
        }
        const float mean_g = mm_warp_sum(sum_g) * inv_width;
        const float mean_gx = mm_warp_sum(sum_gx) * inv_width;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int j = (c * MM_WARP + mm_lane()) * N;
            if (j >= a.width)
                continue;
            mm_vec<float, N> d = {};
            if (a.residual)
                d = mm_load_floats<N>(a.residual + row * a.x_stride + j);
#pragma unroll
            for (int k = 0; k < N; k++)
                d.v[k] += rstd * (g[c].v[k] - mean_g - xhat[c].v[k] * mean_gx);
            mm_store_floats<N>(a.dx + row * a.x_stride + j, d);
        }
    }
    /* The warps add theirs in turn. */
    for (int warp = 0; warp < MM_ROWS_A_BLOCK; warp++) {
        if ((int)(threadIdx.x / MM_WARP) == warp) {
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                const int j = (c * MM_WARP + mm_lane()) * N;
                if (j >= a.width)
                    continue;
                mm_vec<float, N> of_gamma = dgamma[c], of_beta = dbeta[c];
                if (warp > 0) {
                    const mm_vec<float, N> x = mm_load<N>(shared + j);
                    const mm_vec<float, N> y = mm_load<N>(shared + a.width + j);
#pragma unroll
                    for (int k = 0; k < N; k++) {
                        of_gamma.v[k] += x.v[k];
                        of_beta.v[k] += y.v[k];
                    }
                }
                mm_store<N>(shared + j, of_gamma);
                mm_store<N>(shared + a.width + j, of_beta);
            }
        }
        __syncthreads();
    }
    float *out = a.partials + (int64_t)blockIdx.x * 2 * a.width;
    for (int64_t j = threadIdx.x; j < 2 * a.width; j += GRAD_THREADS)
        out[j] = shared[j];
}

/* Rows of any width and alignment: dx row by row, then the block's sums column
 * by column, reading again. */
template <typename T>
__device__ void any_row(const layernorm_grad_arguments<T> &a, int64_t row)
{
    const float mean = a.mean[row], rstd = a.rstd[row];
    const T *x = a.x + row * a.x_stride, *dy = a.dy + row * a.width;
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (int64_t j = mm_lane(); j < a.width; j += MM_WARP) {
        const float g = mm_float_of(dy[j]) * a.gamma[j];
        sum_g += g;
        sum_gx += g * ((mm_float_of(x[j]) - mean) * rstd);
    }
    const float mean_g = mm_warp_sum(sum_g) / (float)a.width;
    const float mean_gx = mm_warp_sum(sum_gx) / (float)a.width;
    for (int64_t j = mm_lane(); j < a.width; j += MM_WARP) {
        const float g = mm_float_of(dy[j]) * a.gamma[j];
        const float xhat = (mm_float_of(x[j]) - mean) * rstd;
        float d = rstd * (g - mean_g - xhat * mean_gx);
        if (a.residual)
            d += mm_float_of(a.residual[row * a.x_stride + j]);
        mm_set(a.dx[row * a.x_stride + j], d);
    }
}

template <typename T>
__global__ void __launch_bounds__(GRAD_THREADS)
    mm_layernorm_grad_any_kernel(layernorm_grad_arguments<T> a)
{
    for (int64_t row = mm_warp_row(); row < a.n_rows;
         row += (int64_t)gridDim.x * MM_ROWS_A_BLOCK)
        any_row(a, row);
}

template <typename T>
__global__ void __launch_bounds__(GRAD_THREADS)
    mm_layernorm_grad_columns_kernel(layernorm_grad_arguments<T> a)
{
    float *out = a.partials + (int64_t)blockIdx.x * 2 * a.width;
    for (int64_t j = threadIdx.x; j < a.width; j += GRAD_THREADS) {
        float dgamma = 0.0f, dbeta = 0.0f;
        for (int64_t row = blockIdx.x; row < a.n_rows; row += gridDim.x) {
            const float dy = mm_float_of(a.dy[row * a.width + j]);
            const float x = mm_float_of(a.x[row * a.x_stride + j]);
            dgamma += dy * ((x - a.mean[row]) * a.rstd[row]);
            dbeta += dy;
        }
        out[j] = dgamma;
        out[a.width + j] = dbeta;
    }
}

template <int ELEMS, typename T>
static void launch_width(cudaStream_t on, unsigned n_blocks,
                         const layernorm_grad_arguments<T> &a)
{
    constexpr int N = mm_wide<T>;
    const size_t shared_bytes = 2 * (size_t)a.width * sizeof(float);
    MM_LAUNCH((mm_layernorm_grad_kernel<N, ELEMS / N, T>), n_blocks,
              GRAD_THREADS, shared_bytes, on, a);
}

/* By the elements that a lane keeps, as layernorm. */
template <typename T>
static void launch_rows(cudaStream_t on, unsigned n_blocks,
                        const layernorm_grad_arguments<T> &a)
{
    constexpr int N = mm_wide<T>;
    const bool wide = mm_fits<N>(a.dx, a.residual, a.dy, a.x) &&
                      mm_fits<N>(a.gamma) && a.width % N == 0 &&
                      (a.x_stride % N == 0 || a.n_rows == 1);
    if (!wide || a.width > 40 * MM_WARP) {
        MM_LAUNCH((mm_layernorm_grad_columns_kernel<T>), n_blocks, GRAD_THREADS,
                  0, on, a);
        MM_LAUNCH((mm_layernorm_grad_any_kernel<T>), n_blocks, GRAD_THREADS, 0,
                  on, a);
    } else if (a.width <= 8 * MM_WARP) {
        launch_width<8>(on, n_blocks, a);
    } else if (a.width <= 24 * MM_WARP) {
        launch_width<24>(on, n_blocks, a);
    } else if (a.width <= 32 * MM_WARP) {
        launch_width<32>(on, n_blocks, a);
    } else {
        launch_width<40>(on, n_blocks, a);
    }
}

template <typename T>
static mm_status layernorm_grad(mm_stream *stream, float *dgamma, float *dbeta,
                                bool accumulate, layernorm_grad_arguments<T> a)
{
    MM_CUDA_REQUIRE("layernorm_grad", stream && a.n_rows >= 0 && a.width >= 0);
    if (a.width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("layernorm_grad", dgamma && dbeta);
    MM_CUDA_REQUIRE("layernorm_grad",
                    a.n_rows == 0 ||
                        (a.dx && a.dy && a.x && a.mean && a.rstd && a.gamma));
    MM_CUDA_REQUIRE("layernorm_grad", a.x_stride >= a.width || a.n_rows <= 1);
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    MM_CUDA_REQUIRE_SCRATCH("layernorm_grad", cuda,
                            mm_cuda_layernorm_scratch(a.width));
    a.partials = static_cast<float *>(cuda->scratch);
    const int64_t n_blocks =
        mm_min_i64(GRAD_BLOCKS, mm_ceil_div(a.n_rows, MM_ROWS_A_BLOCK));
    if (n_blocks > 0)
        launch_rows(cuda->stream, (unsigned)n_blocks, a);
    const unsigned column_blocks = mm_blocks(a.width, MM_WARP);
    MM_LAUNCH((mm_column_sums_kernel<float>), column_blocks, MM_COLUMN_THREADS,
              0, cuda->stream, dgamma, a.partials, 2 * a.width, accumulate,
              n_blocks, a.width, n_blocks);
    MM_LAUNCH((mm_column_sums_kernel<float>), column_blocks, MM_COLUMN_THREADS,
              0, cuda->stream, dbeta, a.partials + a.width, 2 * a.width,
              accumulate, n_blocks, a.width, n_blocks);
    return MM_CUDA(cudaGetLastError(), "layernorm_grad of %lld rows of %lld",
                   (long long)a.n_rows, (long long)a.width);
}

mm_status mm_cuda_layernorm_grad(mm_stream *stream, mm_act *dx, float *dgamma,
                                 float *dbeta, const mm_act *residual,
                                 const mm_act *dy, const mm_act *x,
                                 int64_t x_stride, const float *mean,
                                 const float *rstd, const float *gamma,
                                 bool accumulate, int64_t n_rows, int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return layernorm_grad<T>(stream, dgamma, dbeta, accumulate,
                                 {mm_as<T>(dx), nullptr, mm_as<T>(residual),
                                  mm_as<T>(dy), mm_as<T>(x), x_stride, mean,
                                  rstd, gamma, n_rows, width});
    });
}
