/* Adding one squared gradient to a diagonal Fisher information, without fused
 * multiply-add. */

#include "kernels/cuda/flat.cuh"

namespace
{
/* The CPU's order of operations, without contraction: the same bits. */
struct fold_fisher {
    float *fisher;
    const float *grad;
    float keep, scale;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<float, N> f = mm_load<N>(fisher + i);
        const mm_vec<float, N> g = mm_load<N>(grad + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            f.v[k] = keep * f.v[k] + scale * (g.v[k] * g.v[k]);
        mm_store<N>(fisher + i, f);
    }
};
} // namespace

mm_status mm_cuda_fold_fisher(mm_stream *stream, float *fisher,
                              const float *grad, float keep, float scale,
                              int64_t n_elems)
{
    MM_CUDA_REQUIRE("fold_fisher", stream && n_elems >= 0);
    MM_CUDA_REQUIRE("fold_fisher", n_elems == 0 || (fisher && grad));
    return mm_flat(stream, "fold_fisher", mm_fits<4>(fisher, grad),
                   fold_fisher{fisher, grad, keep, scale}, n_elems);
}
