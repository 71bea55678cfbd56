/* Setting every element of a flat buffer, of floats or of activations, to one
 * value. */

#include "kernels/cuda/flat.cuh"

namespace
{
template <typename T> struct fill {
    T *x;
    float value;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<float, N> all;
#pragma unroll
        for (int k = 0; k < N; k++)
            all.v[k] = value;
        mm_store_floats<N>(x + i, all);
    }
};
} // namespace

mm_status mm_cuda_fill(mm_stream *stream, float *x, float value,
                       int64_t n_elems)
{
    MM_CUDA_REQUIRE("fill", stream && n_elems >= 0 && (x || n_elems == 0));
    return mm_flat(stream, "fill", mm_fits<4>(x), fill<float>{x, value},
                   n_elems);
}

mm_status mm_cuda_fill_act(mm_stream *stream, mm_act *x, float value,
                           int64_t n_elems)
{
    MM_CUDA_REQUIRE("fill_act", stream && n_elems >= 0 && (x || n_elems == 0));
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        constexpr int N = mm_wide<T>;
        T *to = mm_as<T>(x);
        return mm_flat<N>(stream, "fill_act", mm_fits<N>(to),
                          fill<T>{to, value}, n_elems);
    });
}
