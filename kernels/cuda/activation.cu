#include "kernels/cuda/flat.cuh"
#include "kernels/cuda/product.h"

namespace
{
/* x Phi(x), Phi(x) = erfc(-x / sqrt(2)) / 2; its slope is Phi(x) + x phi(x). */
struct gelu {
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

/* x s, s = sigmoid(z), z = 1.702 x; its slope is s + z s (1 - s). With t =
 * exp(-|z|) and q = 1 / (1 + t), s and 1 - s are q and t q, or t q and q. */
struct quick_gelu {
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

template <typename A, typename T> struct forward {
    T *y;
    const T *x;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<float, N> of = mm_load_floats<N>(x + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            of.v[k] = A::value(of.v[k]);
        mm_store_floats<N>(y + i, of);
    }
};

template <typename A, typename T> struct backward {
    T *dx;
    const T *x;
    template <int N> __device__ void run(int64_t i) const
    {
        const mm_vec<float, N> of = mm_load_floats<N>(x + i);
        mm_vec<float, N> d = mm_load_floats<N>(dx + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            d.v[k] *= A::slope(of.v[k]);
        mm_store_floats<N>(dx + i, d);
    }
};
} // namespace

template <typename T>
static mm_status activate(mm_stream *stream, T *y, const T *x,
                          mm_activation activation, int64_t n)
{
    constexpr int W = mm_wide<T>;
    const bool wide = mm_fits<W>(y, x);
    if (activation == MM_GELU)
        return mm_flat<W>(stream, "activation", wide, forward<gelu, T>{y, x},
                          n);
    return mm_flat<W>(stream, "activation", wide, forward<quick_gelu, T>{y, x},
                      n);
}

template <typename T>
static mm_status activate_grad(mm_stream *stream, T *dx, const T *x,
                               mm_activation activation, int64_t n)
{
    constexpr int W = mm_wide<T>;
    const bool wide = mm_fits<W>(dx, x);
    if (activation == MM_GELU)
        return mm_flat<W>(stream, "activation gradient", wide,
                          backward<gelu, T>{dx, x}, n);
    return mm_flat<W>(stream, "activation gradient", wide,
                      backward<quick_gelu, T>{dx, x}, n);
}

mm_status mm_cuda_activate(mm_stream *stream, mm_act *y, const mm_act *x,
                           mm_activation activation, int64_t n_elems)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return activate(stream, mm_as<T>(y), mm_as<T>(x), activation, n_elems);
    });
}

mm_status mm_cuda_activate_grad(mm_stream *stream, mm_act *dx, const mm_act *x,
                                mm_activation activation, int64_t n_elems)
{
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        return activate_grad(stream, mm_as<T>(dx), mm_as<T>(x), activation,
                             n_elems);
    });
}
