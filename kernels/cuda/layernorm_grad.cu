/* The gradient of layer norm, one warp per row, with its sums over rows in a
 * fixed order. */

#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

/* Blocks whose sums are kept apart: the same on every GPU, so that the bits
 * are; two per multiprocessor of an H100. */
enum { GRAD_BLOCKS = 264, GRAD_THREADS = MM_ROWS_PER_BLOCK * MM_WARP };

/* Sums down the columns: gradients of gamma and beta, and of the bias of the
 * layer below. */
enum { MOST_SUMS = 3 };

int64_t mm_cuda_layernorm_scratch(int64_t width)
{
    return GRAD_BLOCKS * MOST_SUMS * width * (int64_t)sizeof(float);
}

namespace
{
template <typename T> struct layernorm_grad_arguments {
    T *dx;
    int n_sums;      /* 2, or with dbias 3 */
    float *partials; /* [n_blocks][dgamma, dbeta, dbias][width] */
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

/* Rows in shared memory, of which a lane has the columns that it has of a row
 * of x: the 16-byte parts of all lanes side by side, so that eight lanes meet
 * no bank twice. */
template <int N> __device__ __forceinline__ int place(int c, int lane, int part)
{
    return ((c * (N / 4) + part) * MM_WARP + lane) * 4;
}

template <int N>
__device__ __forceinline__ mm_vec<float, N> load_shared(const float *row, int c)
{
    mm_vec<float, N> x;
#pragma unroll
    for (int k = 0; k < N; k += 4) {
        const mm_vec<float, 4> four =
            mm_load<4>(row + place<N>(c, mm_lane(), k / 4));
#pragma unroll
        for (int i = 0; i < 4; i++)
            x.v[k + i] = four.v[i];
    }
    return x;
}

template <int N>
__device__ __forceinline__ void store_shared(float *row, int c,
                                             const mm_vec<float, N> &x)
{
#pragma unroll
    for (int k = 0; k < N; k += 4)
        mm_store<4>(row + place<N>(c, mm_lane(), k / 4),
                    {x.v[k], x.v[k + 1], x.v[k + 2], x.v[k + 3]});
}

/** out = the sum of the warps' rows, in their order. */
template <int N, int WIDE>
__device__ __forceinline__ void add_rows(float *out, const float *rows,
                                         int64_t width)
{
    __syncthreads();
    for (int j = (int)threadIdx.x; j < width; j += GRAD_THREADS) {
        const int at = place<N>(j / (MM_WARP * N), j / N % MM_WARP, j % N / 4);
        float all = rows[at + j % 4];
        for (int warp = 1; warp < MM_ROWS_PER_BLOCK; warp++)
            all += rows[warp * WIDE + at + j % 4];
        out[j] = all;
    }
    __syncthreads();
}

/** xhat = (x - mean) rstd and g = dy gamma of one access. */
template <int N, typename T>
__device__ __forceinline__ void
standardize(mm_vec<float, N> &xhat, mm_vec<float, N> &g, const packed<N, T> &x,
            const packed<N, T> &dy, const mm_vec<float, N> &gamma, float mean,
            float rstd)
{
#pragma unroll
    for (int k = 0; k < N; k++) {
        xhat.v[k] = (x[k] - mean) * rstd;
        g.v[k] = dy[k] * gamma.v[k];
    }
}
} // namespace

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), the means over the row. One warp
 * per row, which stays in registers as it was read, all of it asked for at
 * once; xhat and g are computed twice, which is cheaper than keeping them. The
 * lane's columns of dgamma and dbeta stay in registers, too, those of dbias in
 * shared memory, and so does gamma. */
template <int N, int CHUNKS, typename T>
__global__ void __launch_bounds__(GRAD_THREADS,
                                  sizeof(T) == 2 && N * CHUNKS <= 24 ? 2 : 1)
    mm_layernorm_grad_kernel(layernorm_grad_arguments<T> a)
{
    constexpr bool EARLY = sizeof(T) == 2; /* fp32 rows leave no registers */
    constexpr int WIDE = N * CHUNKS * MM_WARP;
    MM_SHARED(float, shared, (1 + MM_ROWS_PER_BLOCK) * WIDE);
    float *gamma = shared, *rows = shared + WIDE; /* a row per warp */
    float *mine = rows + (int)(threadIdx.x / MM_WARP) * WIDE;
    mm_vec<float, N> dgamma[CHUNKS] = {}, dbeta[CHUNKS] = {};
    for (int c = 0; c < CHUNKS; c++) {
        const int j = (c * MM_WARP + mm_lane()) * N;
        store_shared<N>(mine, c, {});
        if (mine == rows && j < a.width)
            store_shared<N>(gamma, c, mm_load<N>(a.gamma + j));
    }
    __syncthreads();
    const float inv_width = 1.0f / (float)a.width;
    for (int64_t row = mm_warp_row(); row < a.n_rows;
         row += (int64_t)gridDim.x * MM_ROWS_PER_BLOCK) {
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
            standardize(xhat, g, x[c], dy[c], load_shared<N>(gamma, c), mean,
                        rstd);
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
            standardize(xhat, g, x[c], dy[c], load_shared<N>(gamma, c), mean,
                        rstd);
            mm_vec<float, N> d = {};
#pragma unroll
            for (int k = 0; k < N; k++) {
                if (a.residual)
                    d.v[k] = residual[c][k];
                d.v[k] += rstd * (g.v[k] - mean_g - xhat.v[k] * mean_gx);
            }
            mm_store_floats<N>(a.dx + row * a.x_stride + j, d);
            if (a.n_sums == MOST_SUMS) {
                mm_vec<float, N> dbias = load_shared<N>(mine, c);
#pragma unroll
                for (int k = 0; k < N; k++)
                    dbias.v[k] += d.v[k];
                store_shared<N>(mine, c, dbias);
            }
        }
    }
    float *out = a.partials + (int64_t)blockIdx.x * a.n_sums * a.width;
    if (a.n_sums == MOST_SUMS)
        add_rows<N, WIDE>(out + 2 * a.width, rows, a.width);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        store_shared<N>(mine, c, dgamma[c]);
    add_rows<N, WIDE>(out, rows, a.width);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        store_shared<N>(mine, c, dbeta[c]);
    add_rows<N, WIDE>(out + a.width, rows, a.width);
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
         row += (int64_t)gridDim.x * MM_ROWS_PER_BLOCK)
        any_row(a, row);
}

template <typename T>
__global__ void __launch_bounds__(GRAD_THREADS)
    mm_layernorm_grad_columns_kernel(layernorm_grad_arguments<T> a)
{
    float *out = a.partials + (int64_t)blockIdx.x * a.n_sums * a.width;
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

namespace
{
struct layernorm_sums {
    float *dgamma, *dbeta, *dbias; /* the last may be NULL */
};
} // namespace

/** Adds up what the blocks have left; blockIdx.y says which of the sums. */
__global__ void __launch_bounds__(MM_COLUMN_THREADS)
    mm_layernorm_sums_kernel(layernorm_sums sums, const float *partials,
                             bool accumulate, int64_t n_blocks, int64_t width)
{
    const mm_elements<float> of = {partials + blockIdx.y * width};
    float *to = blockIdx.y == 0   ? sums.dgamma
                : blockIdx.y == 1 ? sums.dbeta
                                  : sums.dbias;
    mm_sum_columns<1, 4>(to, of, gridDim.y * width, accumulate, n_blocks, width,
                         n_blocks);
}

template <int ELEMS, typename T>
static void launch_width(cudaStream_t on, unsigned n_blocks,
                         const layernorm_grad_arguments<T> &a)
{
    constexpr int N = mm_wide<T>;
    MM_LAUNCH((mm_layernorm_grad_kernel<N, ELEMS / N, T>), n_blocks,
              GRAD_THREADS, 0, on, a);
}

template <typename T> static bool fits(const layernorm_grad_arguments<T> &a)
{
    constexpr int N = mm_wide<T>;
    return mm_fits<N>(a.dx, a.residual, a.dy, a.x) && mm_fits<N>(a.gamma) &&
           a.width % N == 0 && (a.x_stride % N == 0 || a.n_rows == 1) &&
           a.width <= 40 * MM_WARP;
}

/* By the elements that a lane keeps, as layernorm. */
template <typename T>
static void launch_rows(cudaStream_t on, unsigned n_blocks,
                        const layernorm_grad_arguments<T> &a)
{
    if (!fits(a)) {
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
static mm_status layernorm_grad(mm_stream *stream, const layernorm_sums &sums,
                                bool accumulate, layernorm_grad_arguments<T> a)
{
    MM_CUDA_REQUIRE("layernorm_grad", stream && a.n_rows >= 0 && a.width >= 0);
    if (a.width == 0)
        return MM_OK;
    MM_CUDA_REQUIRE("layernorm_grad", sums.dgamma && sums.dbeta);
    MM_CUDA_REQUIRE("layernorm_grad",
                    a.n_rows == 0 ||
                        (a.dx && a.dy && a.x && a.mean && a.rstd && a.gamma));
    MM_CUDA_REQUIRE("layernorm_grad", a.x_stride >= a.width || a.n_rows <= 1);
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    MM_CUDA_REQUIRE_SCRATCH("layernorm_grad", cuda,
                            mm_cuda_layernorm_scratch(a.width));
    const bool fused = cuda->variants.bias_sums == MM_BIAS_SUMS_FUSED;
    a.n_sums = sums.dbias && fused && fits(a) ? 3 : 2;
    a.partials = static_cast<float *>(cuda->scratch);
    const int64_t n_blocks =
        mm_min_i64(GRAD_BLOCKS, mm_ceil_div(a.n_rows, MM_ROWS_PER_BLOCK));
    if (n_blocks > 0)
        launch_rows(cuda->stream, (unsigned)n_blocks, a);
    MM_LAUNCH(mm_layernorm_sums_kernel,
              dim3(mm_blocks(a.width, MM_WARP), (unsigned)a.n_sums),
              MM_COLUMN_THREADS, 0, cuda->stream, sums, a.partials, accumulate,
              n_blocks, a.width);
    MM_TRY(MM_CUDA(cudaGetLastError(), "layernorm_grad of %lld rows of %lld",
                   (long long)a.n_rows, (long long)a.width));
    return a.n_sums == MOST_SUMS
               ? MM_OK
               : mm_cuda_bias_grad(stream, sums.dbias,
                                   reinterpret_cast<mm_act *>(a.dx), a.x_stride,
                                   accumulate, a.n_rows, a.width);
}

mm_status mm_cuda_layernorm_grad(mm_stream *stream, mm_act *dx, float *dgamma,
                                 float *dbeta, float *dbias,
                                 const mm_act *residual, const mm_act *dy,
                                 const mm_act *x, int64_t x_stride,
                                 const float *mean, const float *rstd,
                                 const float *gamma, bool accumulate,
                                 int64_t n_rows, int64_t width)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return layernorm_grad<T>(stream, {dgamma, dbeta, dbias}, accumulate,
                                 {mm_as<T>(dx), 0, nullptr, mm_as<T>(residual),
                                  mm_as<T>(dy), mm_as<T>(x), x_stride, mean,
                                  rstd, gamma, n_rows, width});
    });
}
