#include "kernels/cuda/reduce.cuh"

namespace
{
struct is_nonfinite {
    __device__ int64_t operator()(float x) const
    {
        const uint32_t exponent = 0x7F800000u;
        return (__float_as_uint(x) & exponent) == exponent;
    }
};
} // namespace

mm_status mm_cuda_count_nonfinite(mm_stream *stream, int64_t *count,
                                  const float *x, int64_t n_elems)
{
    MM_CUDA_REQUIRE("count_nonfinite", stream && count && n_elems >= 0);
    MM_CUDA_REQUIRE("count_nonfinite", x || n_elems == 0);
    return mm_map_sum(stream, "count_nonfinite", count, x, is_nonfinite{},
                      n_elems);
}
