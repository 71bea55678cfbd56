#include "kernels/cuda/flat.cuh"

namespace
{
/* The CPU's order of operations, without contraction: the same bits. */
struct adamw {
    float *theta, *m, *v;
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
    }
};
} // namespace

mm_status mm_cuda_adamw(mm_stream *stream, float *theta, float *m, float *v,
                        const float *grad, const mm_adamw *step,
                        int64_t n_elems)
{
    MM_CUDA_REQUIRE("adamw", stream && step && n_elems >= 0);
    MM_CUDA_REQUIRE("adamw", n_elems == 0 || (theta && m && v && grad));
    return mm_flat(
        stream, "adamw", mm_fits<4>(theta, m, v, grad),
        adamw{theta, m, v, grad, *step, step->lr * step->weight_decay},
        n_elems);
}
