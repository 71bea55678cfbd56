/* GELU and QuickGELU and their gradients, with the sums down the gradient's
 * columns. */

#include "kernels/cuda/approximate.cuh"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/product.h"

/* AHEAD: accesses that a thread has under way before the first of many
 * operations. */
enum { ACTIVATION_THREADS = 256, AHEAD = 2 };

namespace
{
/* x Phi(x), Phi(x) = erfc(-x / sqrt(2)) / 2; its slope is Phi(x) + x phi(x). */
template <typename T> struct gelu {
    static __device__ float value(float x)
    {
        return 0.5f * x * erfcf(-0.70710678f * x);
    }
    static __device__ float slope(float x)
    {
        return 0.5f * erfcf(-0.70710678f * x) +
               0.39894228f * x * expf(-0.5f * x * x);
    }
};

/* Where x and the result are bf16: Phi(-a) = exp(-a^2 / 2) r(t), t = 1 / (1 + p
 * a), for a = |x|, the form of Abramowitz and Stegun 7.1.26. p and the
 * polynomial r are fitted to the relative error by Remez's exchange: 1.4e-6 to
 * a = 6.5, 4.2e-4 beyond, where Phi is below 5e-11. With the errors of the
 * instructions: relative 2.3e-6 of the value, absolute 1.2e-6 of the slope;
 * half a unit in bf16's last place is 2e-3 to 4e-3. */
template <> struct gelu<mm_bf16> {
    struct tail {
        float e, r;
    };
    static __device__ tail tail_of(float x)
    {
        const float t = mm_reciprocal(1.0f + 0.292f * fabsf(x));
        float r = -0.088945574f;
        r = r * t + 0.27955885f;
        r = r * t - 0.089872606f;
        r = r * t + 0.18102272f;
        r = r * t + 0.10031816f;
        r = r * t + 0.11791914f;
        return {mm_exp2(x * x * -0.72134752f), r * t};
    }
    static __device__ float value(float x)
    {
        const tail at = tail_of(x);
        const float phi = at.e * at.r;
        return x * (x < 0.0f ? phi : 1.0f - phi);
    }
    static __device__ float slope(float x)
    {
        const tail at = tail_of(x);
        const float g = at.e * (0.39894228f * fabsf(x) - at.r);
        return x < 0.0f ? -g : 1.0f + g;
    }
};

/* x s, s = sigmoid(z), z = 1.702 x; its slope is s + z s (1 - s). With t =
 * exp(-|z|) and q = 1 / (1 + t), s and 1 - s are q and t q, or t q and q. */
template <typename T> struct quick_gelu {
    static __device__ float value(float x)
    {
        return x / (1.0f + expf(-1.702f * x));
    }
    static __device__ float slope(float x)
    {
        const float z = 1.702f * x, t = expf(-fabsf(z));
        const float q = 1.0f / (1.0f + t);
        return (z < 0.0f ? t * q : q) + z * (t * q * q);
    }
};

/* The same with one instruction for each function; 2.455467 is 1.702 log2(e).
 * Relative error of the value: 4e-6; absolute error of the slope: 4e-7. */
template <> struct quick_gelu<mm_bf16> {
    static __device__ float value(float x)
    {
        return x * mm_reciprocal(1.0f + mm_exp2(-2.455467f * x));
    }
    static __device__ float slope(float x)
    {
        const float t = mm_exp2(-2.455467f * fabsf(x));
        const float q = mm_reciprocal(1.0f + t), u = t * q;
        return (x < 0.0f ? u : q) + x * (1.702f * (u * q));
    }
};

/* Of N elements from i on: what is asked for, and what is made of it. */
template <typename A, typename T> struct forward {
    T *y;
    const T *x;
    template <int N> using part = mm_vec<T, N>;
    template <int N> __device__ __forceinline__ part<N> load(int64_t i) const
    {
        return mm_load<N>(x + i);
    }
    template <int N>
    __device__ __forceinline__ void finish(int64_t i, const part<N> &of) const
    {
        mm_vec<float, N> values;
#pragma unroll
        for (int k = 0; k < N; k++)
            values.v[k] = A::value(mm_float_of(of.v[k]));
        mm_store_floats<N>(y + i, values);
    }
};

template <typename A, typename T> struct backward {
    T *dx;
    const T *x;
    template <int N> struct part {
        mm_vec<T, N> x, dx;
    };
    template <int N> __device__ __forceinline__ part<N> load(int64_t i) const
    {
        return {mm_load<N>(x + i), mm_load<N>(dx + i)};
    }
    template <int N>
    __device__ __forceinline__ mm_vec<float, N> finish(int64_t i,
                                                       const part<N> &of) const
    {
        mm_vec<float, N> d = mm_floats_of(of.dx);
#pragma unroll
        for (int k = 0; k < N; k++)
            d.v[k] *= A::slope(mm_float_of(of.x.v[k]));
        mm_store_floats<N>(dx + i, d);
        return d;
    }
};
} // namespace

template <int N, typename F>
__global__ void __launch_bounds__(ACTIVATION_THREADS)
    mm_activation_kernel(F f, int64_t n_elems)
{
    const int64_t first =
        ((int64_t)blockIdx.x * AHEAD * ACTIVATION_THREADS + threadIdx.x) * N;
    typename F::template part<N> ahead[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
        const int64_t i = first + a * ACTIVATION_THREADS * N;
        if (i + N <= n_elems)
            ahead[a] = f.template load<N>(i);
    }
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
        int64_t i = first + a * ACTIVATION_THREADS * N;
        if (i + N <= n_elems)
            f.template finish<N>(i, ahead[a]);
        else
#pragma unroll 1
            for (; i < n_elems; i++) /* the one access that is cut */
                f.template finish<1>(i, f.template load<1>(i));
    }
}

template <int N, typename F>
__global__ void __launch_bounds__(MM_COLUMN_THREADS, MM_COLUMN_BLOCKS_PER_SM)
    mm_activation_sums_kernel(float *out, F f, bool accumulate, int64_t n_rows,
                              int64_t width, int64_t rows_per_part)
{
    mm_sum_columns<N, AHEAD>(out, f, width, accumulate, n_rows, width,
                             rows_per_part);
}

template <int N, typename F>
static void launch(cudaStream_t on, F f, int64_t n_elems)
{
    if (n_elems > 0)
        MM_LAUNCH((mm_activation_kernel<N, F>),
                  mm_blocks(n_elems, AHEAD * ACTIVATION_THREADS * N),
                  ACTIVATION_THREADS, 0, on, f, n_elems);
}

template <int N, typename F>
static void launch_sums(const mm_cuda_stream *cuda, float *sums, F f,
                        bool accumulate, mm_column_parts parts, int64_t n_rows,
                        int64_t width)
{
    float *partials = static_cast<float *>(cuda->partials);
    const bool one = parts.n == 1;
    MM_LAUNCH((mm_activation_sums_kernel<N, F>),
              (unsigned)parts.n * mm_blocks(width, MM_WARP * N),
              MM_COLUMN_THREADS, 0, cuda->stream, one ? sums : partials, f,
              one && accumulate, n_rows, width, parts.rows);
    if (!one)
        mm_add_partials(cuda->stream, sums, partials, accumulate, parts.n,
                        width, width);
}

template <typename A, typename T>
static mm_status activate(mm_stream *stream, T *y, const T *x, int64_t n_elems)
{
    constexpr int N = mm_wide<T>;
    const cudaStream_t on = mm_cuda_stream_of(stream)->stream;
    const forward<A, T> f = {y, x};
    if (mm_fits<N>(y, x))
        launch<N>(on, f, n_elems);
    else
        launch<1>(on, f, n_elems);
    return MM_CUDA(cudaGetLastError(), "activation of %lld elements",
                   (long long)n_elems);
}

/** Adds up columns where `sums` is given. */
template <typename A, typename T>
static mm_status activate_grad(mm_stream *stream, T *dx, float *sums,
                               const T *x, bool accumulate, int64_t n_rows,
                               int64_t width)
{
    constexpr int N = mm_wide<T>;
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    const backward<A, T> f = {dx, x};
    const bool fits = mm_fits<N>(dx, x);
    if (width == 0)
        return MM_OK;
    if (sums) {
        const mm_column_parts parts = mm_divide_rows<T>(n_rows, width);
        if (fits && width % N == 0)
            launch_sums<N>(cuda, sums, f, accumulate, parts, n_rows, width);
        else
            launch_sums<1>(cuda, sums, f, accumulate, parts, n_rows, width);
    } else if (fits) {
        launch<N>(cuda->stream, f, n_rows * width);
    } else {
        launch<1>(cuda->stream, f, n_rows * width);
    }
    return MM_CUDA(cudaGetLastError(), "activation gradient of [%lld, %lld]",
                   (long long)n_rows, (long long)width);
}

mm_status mm_cuda_activate(mm_stream *stream, mm_act *y, const mm_act *x,
                           mm_activation activation, int64_t n_elems)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return activation == MM_GELU
                   ? activate<gelu<T>>(stream, mm_as<T>(y), mm_as<T>(x),
                                       n_elems)
                   : activate<quick_gelu<T>>(stream, mm_as<T>(y), mm_as<T>(x),
                                             n_elems);
    });
}

mm_status mm_cuda_activate_grad(mm_stream *stream, mm_act *dx, float *dbias,
                                const mm_act *x, mm_activation activation,
                                bool accumulate, int64_t n_rows, int64_t width)
{
    const bool fused =
        mm_cuda_stream_of(stream)->variants.bias_sums == MM_BIAS_SUMS_FUSED;
    float *sums = fused ? dbias : nullptr;
    MM_TRY(mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return activation == MM_GELU
                   ? activate_grad<gelu<T>>(stream, mm_as<T>(dx), sums,
                                            mm_as<T>(x), accumulate, n_rows,
                                            width)
                   : activate_grad<quick_gelu<T>>(stream, mm_as<T>(dx), sums,
                                                  mm_as<T>(x), accumulate,
                                                  n_rows, width);
    }));
    return fused ? MM_OK
                 : mm_cuda_bias_grad(stream, dbias, dx, width, accumulate,
                                     n_rows, width);
}
