#include "kernels/cuda/reduce.cuh"

namespace
{
struct square {
    __device__ double operator()(float x) const
    {
        return (double)x * (double)x;
    }
};
} // namespace

mm_status mm_cuda_sum_squares(mm_stream *stream, double *sum, const float *x,
                              int64_t n_elems)
{
    MM_CUDA_REQUIRE("sum_squares", stream && sum && n_elems >= 0);
    MM_CUDA_REQUIRE("sum_squares", x || n_elems == 0);
    return mm_map_sum(stream, "sum_squares", sum, x, square{}, n_elems);
}
