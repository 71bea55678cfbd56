/* One AdamW step with clipping on the GPU; the clipping factor is computed
 * there too, so that the host need not wait. */

#include "kernels/cuda/flat.cuh"

namespace
{
/* The CPU's order of operations, without contraction: the same bits. */
template <typename T> struct adamw {
    float *theta, *m, *v;
    T *theta_low;
    const float *grad;
    const float *grad_scale; /* one; NaN: nothing changes */
    mm_adamw s;
    float decay;
    template <int N> __device__ void run(int64_t i) const
    {
        const float scale = *grad_scale;
        if (isnan(scale))
            return;
        mm_vec<float, N> t = mm_load<N>(theta + i);
        mm_vec<float, N> first = mm_load<N>(m + i);
        mm_vec<float, N> second = mm_load<N>(v + i);
        const mm_vec<float, N> gradient = mm_load<N>(grad + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float g = gradient.v[k] * scale;
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
        if (theta_low)
            mm_store_floats<N>(theta_low + i, t);
    }
};
} // namespace

__global__ void __launch_bounds__(MM_WARP)
    mm_grad_scale_kernel(float *scale, const double *grad_squares, double clip)
{
    const double norm = sqrt(*grad_squares);
    const double factor = clip > 0 ? fmin(1.0, clip / (norm + 1e-6)) : 1.0;
    if (threadIdx.x == 0)
        *scale = isfinite(norm) ? (float)factor : nanf("");
}

mm_status mm_cuda_adamw(mm_stream *stream, float *theta, float *m, float *v,
                        mm_act *theta_low, const float *grad,
                        const mm_adamw *step, int64_t n_elems)
{
    MM_CUDA_REQUIRE("adamw", stream && step && n_elems >= 0);
    MM_CUDA_REQUIRE("adamw", n_elems == 0 || (theta && m && v && grad));
    MM_CUDA_REQUIRE("adamw", step->grad_squares);
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    const mm_adamw s = *step;
    float *scale = static_cast<float *>(cuda->partials);
    MM_LAUNCH(mm_grad_scale_kernel, 1, MM_WARP, 0, cuda->stream, scale,
              s.grad_squares, s.clip);
    MM_TRY(MM_CUDA(cudaGetLastError(), "adamw of %lld elements",
                   (long long)n_elems));
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        constexpr int N = mm_wide<T>;
        T *copy = mm_as<T>(theta_low);
        return mm_flat<N>(
            stream, "adamw", mm_fits<N>(theta, m, v, grad) && mm_fits<N>(copy),
            adamw<T>{theta, m, v, copy, grad, scale, s, s.lr * s.weight_decay},
            n_elems);
    });
}
