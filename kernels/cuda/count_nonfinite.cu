/* Counting NaN and infinity by their exponent bits. */

#include "kernels/cuda/reduce.cuh"

namespace
{
struct nonfinite {
    const float *x;
    template <int N> __device__ void run(int64_t i, int64_t &sum) const
    {
        const uint32_t exponent = 0x7F800000u;
        const mm_vec<float, N> a = mm_load<N>(x + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum += (__float_as_uint(a.v[k]) & exponent) == exponent;
    }
};
} // namespace

mm_status mm_cuda_count_nonfinite(mm_stream *stream, int64_t *count,
                                  const float *x, int64_t n_elems)
{
    MM_CUDA_REQUIRE("count_nonfinite", stream && count && n_elems >= 0);
    MM_CUDA_REQUIRE("count_nonfinite", x || n_elems == 0);
    return mm_map_sum(stream, "count_nonfinite", count, mm_fits<4>(x),
                      nonfinite{x}, n_elems);
}
