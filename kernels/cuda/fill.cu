#include "kernels/cuda/flat.cuh"

namespace
{
struct fill {
    float *x;
    float value;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<float, N> all;
#pragma unroll
        for (int k = 0; k < N; k++)
            all.v[k] = value;
        mm_store<N>(x + i, all);
    }
};
} // namespace

mm_status mm_cuda_fill(mm_stream *stream, float *x, float value,
                       int64_t n_elems)
{
    MM_CUDA_REQUIRE("fill", stream && n_elems >= 0 && (x || n_elems == 0));
    return mm_flat(stream, "fill", mm_fits<4>(x), fill{x, value}, n_elems);
}
