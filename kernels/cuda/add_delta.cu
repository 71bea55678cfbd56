/* Adding one task's weight change to a sum, for averages and task arithmetic.
 */

#include "kernels/cuda/flat.cuh"

namespace
{
struct add_delta {
    float *sum;
    const float *tuned, *base;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<float, N> s = mm_load<N>(sum + i);
        const mm_vec<float, N> t = mm_load<N>(tuned + i);
        const mm_vec<float, N> b = mm_load<N>(base + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            s.v[k] += t.v[k] - b.v[k];
        mm_store<N>(sum + i, s);
    }
};
} // namespace

mm_status mm_cuda_add_delta(mm_stream *stream, float *sum, const float *tuned,
                            const float *base, int64_t n_elems)
{
    MM_CUDA_REQUIRE("add_delta", stream && n_elems >= 0);
    MM_CUDA_REQUIRE("add_delta", n_elems == 0 || (sum && tuned && base));
    return mm_flat(stream, "add_delta", mm_fits<4>(sum, tuned, base),
                   add_delta{sum, tuned, base}, n_elems);
}
