/* The squared norm of a flat buffer, added up in fp64 in a fixed order. */

#include "kernels/cuda/reduce.cuh"

namespace
{
struct squares {
    const float *x;
    template <int N> __device__ void run(int64_t i, double &sum) const
    {
        const mm_vec<float, N> a = mm_load<N>(x + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum += (double)a.v[k] * (double)a.v[k];
    }
};
} // namespace

mm_status mm_cuda_sum_squares(mm_stream *stream, double *sum, const float *x,
                              int64_t n_elems)
{
    MM_CUDA_REQUIRE("sum_squares", stream && sum && n_elems >= 0);
    MM_CUDA_REQUIRE("sum_squares", x || n_elems == 0);
    return mm_map_sum(stream, "sum_squares", sum, mm_fits<4>(x), squares{x},
                      n_elems);
}
