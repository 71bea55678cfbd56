#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

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

namespace
{
/** N elements as they were read, packed. */
template <int N, typename T> struct packed {
    enum { WORDS = N * (int)sizeof(T) / 4 };
    mm_vec<uint32_t, WORDS> of;

    __device__ __forceinline__ void load(const T *from)
    {
        of = mm_load<WORDS>(reinterpret_cast<const uint32_t *>(from));
    }
    __device__ __forceinline__ float operator[](int k) const
    {
        if (sizeof(T) == 4)
            return __uint_as_float(of.v[k]);
        const uint32_t pair = of.v[k / 2];
        return __uint_as_float(k % 2 ? pair & 0xFFFF0000u : pair << 16);
    }
    /** Have what is made of it made again later, not kept in more registers. */
    __device__ __forceinline__ void forget_uses()
    {
#pragma unroll
        for (int i = 0; i < WORDS; i++)
            asm volatile("" : "+r"(of.v[i]));
    }
};

/** xhat = (x - mean) rstd and g = dy gamma of one access. */
template <int N, typename T>
__device__ __forceinline__ void
standardize(mm_vec<float, N> &xhat, mm_vec<float, N> &g, const packed<N, T> &x,
            const packed<N, T> &dy, const float *gamma, float mean, float rstd)
{
    const mm_vec<float, N> factor = mm_load_floats<N>(gamma);
#pragma unroll
    for (int k = 0; k < N; k++) {
        xhat.v[k] = (x[k] - mean) * rstd;
        g.v[k] = dy[k] * factor.v[k];
    }
}
} // namespace

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), the means over the row. One warp
 * a row, which stays in registers as it was read, all of it asked for at once;
 * xhat and g are computed twice, which is cheaper than keeping them. The lane's
 * columns of dgamma and dbeta stay in registers, too. */
template <int N, int CHUNKS, typename T>
__global__ void __launch_bounds__(GRAD_THREADS,
                                  sizeof(T) == 2 && N * CHUNKS <= 24 ? 2 : 1)
    mm_layernorm_grad_kernel(layernorm_grad_arguments<T> a)
{
    constexpr bool EARLY = sizeof(T) == 2; /* fp32 rows leave no registers */
    MM_DYNAMIC_SHARED(float, shared);      /* [dgamma, dbeta][width] */
    mm_vec<float, N> dgamma[CHUNKS] = {}, dbeta[CHUNKS] = {};
    const float inv_width = 1.0f / (float)a.width;
    for (int64_t row = mm_warp_row(); row < a.n_rows;
         row += (int64_t)gridDim.x * MM_ROWS_A_BLOCK) {
        packed<N, T> x[CHUNKS], dy[CHUNKS], residual[CHUNKS];
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int j = (c * MM_WARP + mm_lane()) * N;
            if (j >= a.width)
                continue;
            x[c].load(a.x + row * a.x_stride + j);
            dy[c].load(a.dy + row * a.width + j);
            if (EARLY && a.residual)
                residual[c].load(a.residual + row * a.x_stride + j);
        }
        const float mean = a.mean[row], rstd = a.rstd[row];
        float sum_g = 0.0f, sum_gx = 0.0f;
        mm_vec<float, N> xhat, g;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int j = (c * MM_WARP + mm_lane()) * N;
            if (j >= a.width)
                continue;
            standardize(xhat, g, x[c], dy[c], a.gamma + j, mean, rstd);
#pragma unroll
            for (int k = 0; k < N; k++) {
                dgamma[c].v[k] += dy[c][k] * xhat.v[k];
                dbeta[c].v[k] += dy[c][k];
                sum_g += g.v[k];
                sum_gx += g.v[k] * xhat.v[k];
            }
        }
        const float mean_g = mm_warp_sum(sum_g) * inv_width;
        const float mean_gx = mm_warp_sum(sum_gx) * inv_width;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int j = (c * MM_WARP + mm_lane()) * N;
            if (j >= a.width)
                continue;
            if (!EARLY && a.residual)
                residual[c].load(a.residual + row * a.x_stride + j);
            x[c].forget_uses();
            dy[c].forget_uses();
            standardize(xhat, g, x[c], dy[c], a.gamma + j, mean, rstd);
            mm_vec<float, N> d = {};
#pragma unroll
            for (int k = 0; k < N; k++) {
                if (a.residual)
                    d.v[k] = residual[c][k];
                d.v[k] += rstd * (g.v[k] - mean_g - xhat.v[k] * mean_gx);
            }
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

/** sums (+)= the sums of n_blocks rows of so many columns. */
static void add_partials(cudaStream_t on, float *sums, const float *partials,
                         bool accumulate, int64_t n_blocks, int64_t n_columns,
                         int64_t stride)
{
    MM_LAUNCH((mm_column_sums_kernel<float>), mm_blocks(n_columns, MM_WARP),
              MM_COLUMN_THREADS, 0, on, sums, partials, stride, accumulate,
              n_blocks, n_columns, n_blocks);
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
    /* In a model's gradient they lie side by side: one launch. */
    const bool together = dbeta == dgamma + a.width;
    const int64_t n_columns = together ? 2 * a.width : a.width;
    add_partials(cuda->stream, dgamma, a.partials, accumulate, n_blocks,
                 n_columns, 2 * a.width);
    if (!together)
        add_partials(cuda->stream, dbeta, a.partials + a.width, accumulate,
                     n_blocks, n_columns, 2 * a.width);
    return MM_CUDA(cudaGetLastError(), "layernorm_grad of %lld rows of %lld",
                   (long long)a.n_rows, (long long)a.width);
}

mm_status mm_cuda_layernorm_grad(mm_stream *stream, mm_act *dx, float *dgamma,
                                 float *dbeta, float *dbias,
                                 const mm_act *residual, const mm_act *dy,
                                 const mm_act *x, int64_t x_stride,
                                 const float *mean, const float *rstd,
                                 const float *gamma, bool accumulate,
                                 int64_t n_rows, int64_t width)
{
    MM_TRY(mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return layernorm_grad<T>(stream, dgamma, dbeta, accumulate,
                                 {mm_as<T>(dx), nullptr, mm_as<T>(residual),
                                  mm_as<T>(dy), mm_as<T>(x), x_stride, mean,
                                  rstd, gamma, n_rows, width});
    }));
    return mm_cuda_bias_grad(stream, dbias, dx, x_stride, accumulate, n_rows,
                             width);
}
