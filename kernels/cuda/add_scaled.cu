/* Merged weights from the base and the scaled change, each operation rounded to
 * fp32. */

#include "kernels/cuda/flat.cuh"

namespace
{
struct add_scaled {
    float *out;
    const float *base, *tau;
    float divisor, coef;
    template <int N> __device__ void run(int64_t i) const
    {
        const mm_vec<float, N> b = mm_load<N>(base + i);
        mm_vec<float, N> t = mm_load<N>(tau + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            t.v[k] = b.v[k] + coef * (t.v[k] / divisor);
        mm_store<N>(out + i, t);
    }
};
} // namespace

mm_status mm_cuda_add_scaled(mm_stream *stream, float *out, const float *base,
                             const float *tau, float divisor, float coef,
                             int64_t n_elems)
{
    MM_CUDA_REQUIRE("add_scaled", stream && n_elems >= 0);
    MM_CUDA_REQUIRE("add_scaled", n_elems == 0 || (out && base && tau));
    return mm_flat(stream, "add_scaled", mm_fits<4>(out, base, tau),
                   add_scaled{out, base, tau, divisor, coef}, n_elems);
}
