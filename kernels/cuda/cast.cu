/* Conversions between floats and activations, which are copies where
 * activations are fp32. */

#include "kernels/cuda/flat.cuh"

namespace
{
template <typename T, typename F> struct cast {
    T *to;
    const F *from;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_store_floats<N>(to + i, mm_load_floats<N>(from + i));
    }
};
} // namespace

mm_status mm_cuda_float_to_act(mm_stream *stream, mm_act *to, const float *from,
                               int64_t n_elems)
{
    MM_CUDA_REQUIRE("float_to_act", stream && n_elems >= 0);
    MM_CUDA_REQUIRE("float_to_act", n_elems == 0 || (to && from));
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        constexpr int N = mm_wide<T>;
        return mm_flat<N>(stream, "float_to_act",
                          mm_fits<N>(mm_as<T>(to), from),
                          cast<T, float>{mm_as<T>(to), from}, n_elems);
    });
}

mm_status mm_cuda_act_to_float(mm_stream *stream, float *to, const mm_act *from,
                               int64_t n_elems)
{
    MM_CUDA_REQUIRE("act_to_float", stream && n_elems >= 0);
    MM_CUDA_REQUIRE("act_to_float", n_elems == 0 || (to && from));
    return mm_by_act(stream, [=](auto of) {
        using T = decltype(of);
        constexpr int N = mm_wide<T>;
        return mm_flat<N>(stream, "act_to_float",
                          mm_fits<N>(to, mm_as<T>(from)),
                          cast<float, T>{to, mm_as<T>(from)}, n_elems);
    });
}
