#include "kernels/cuda/flat.cuh"

namespace
{
/* The CPU's order of operations, without contraction: the same bits. */
template <typename T> struct adamw {
    float *theta, *m, *v;
    T *shadow;
    const float *grad;
    mm_adamw s;
    float decay;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<float, N> t = mm_load<N>(theta + i);
        mm_vec<float, N> first = mm_load<N>(m + i);
        mm_vec<float, N> second = mm_load<N>(v + i);
        const mm_vec<float, N> gradient = mm_load<N>(grad + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float g = gradient.v[k] * s.grad_scale;
            const float decayed = t.v[k] - decay * t.v[k];
            const float mi = s.beta1 * first.v[k] + (1.0f - s.beta1) * g;
            const float vi = s.beta2 * second.v[k] + (1.0f - s.beta2) * (g * g);
            first.v[k] = mi;
            second.v[k] = vi;
            t.v[k] =
                decayed - s.lr * (mi / s.bias1) / (sqrtf(vi / s.bias2) + s.eps);
        }
        mm_store<N>(m + i, first);
        mm_store<N>(v + i, second);
        mm_store<N>(theta + i, t);
        if (shadow)
            mm_store_floats<N>(shadow + i, t);
    }
};
} // namespace

mm_status mm_cuda_adamw(mm_stream *stream, float *theta, float *m, float *v,
                        mm_act *shadow, const float *grad, const mm_adamw *step,
                        int64_t n_elems)
{
    MM_CUDA_REQUIRE("adamw", stream && step && n_elems >= 0);
    MM_CUDA_REQUIRE("adamw", n_elems == 0 || (theta && m && v && grad));
    const mm_adamw s = *step;
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        constexpr int N = mm_wide<T>;
        T *copy = mm_as<T>(shadow);
        return mm_flat<N>(
            stream, "adamw", mm_fits<N>(theta, m, v, grad) && mm_fits<N>(copy),
            adamw<T>{theta, m, v, copy, grad, s, s.lr * s.weight_decay},
            n_elems);
    });
}
