/* The penalty of elastic weight consolidation, summed in fp64, and its
 * gradient. */

#include "kernels/cuda/reduce.cuh"

namespace
{
/* The CPU's order of operations, without contraction: grad has the same bits.
 * What is summed is lambda / 2 times the CPU's terms. */
struct ewc_penalty {
    float *grad;
    const float *theta, *old, *fisher;
    float lambda;
    template <int N> __device__ void run(int64_t i, double &sum) const
    {
        mm_vec<float, N> g = mm_load<N>(grad + i);
        const mm_vec<float, N> t = mm_load<N>(theta + i);
        const mm_vec<float, N> o = mm_load<N>(old + i);
        const mm_vec<float, N> f = mm_load<N>(fisher + i);
        const double half = 0.5 * (double)lambda;
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float d = t.v[k] - o.v[k];
            const float slope = f.v[k] * d;
            g.v[k] = g.v[k] + lambda * slope;
            sum += half * ((double)slope * (double)d);
        }
        mm_store<N>(grad + i, g);
    }
};
} // namespace

mm_status mm_cuda_ewc_penalty(mm_stream *stream, double *penalty, float *grad,
                              const float *theta, const float *old,
                              const float *fisher, float lambda,
                              int64_t n_elems)
{
    MM_CUDA_REQUIRE("ewc_penalty", stream && penalty && n_elems >= 0);
    MM_CUDA_REQUIRE("ewc_penalty",
                    n_elems == 0 || (grad && theta && old && fisher));
    return mm_map_sum(stream, "ewc_penalty", penalty,
                      mm_fits<4>(grad, theta, old, fisher),
                      ewc_penalty{grad, theta, old, fisher, lambda}, n_elems);
}
