/* MagMax's fold: the change of largest magnitude of each element, and the task
 * that it came from. */

#include "kernels/cuda/flat.cuh"

namespace
{
struct max_magnitude {
    float *best;
    uint16_t *winner;
    const float *tuned, *base;
    uint16_t task;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<float, N> so_far = mm_load<N>(best + i);
        mm_vec<uint16_t, N> winners = mm_load<N>(winner + i);
        const mm_vec<float, N> t = mm_load<N>(tuned + i);
        const mm_vec<float, N> b = mm_load<N>(base + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float d = t.v[k] - b.v[k];
            const bool wins = fabsf(d) >= fabsf(so_far.v[k]);
            so_far.v[k] = wins ? d : so_far.v[k];
            winners.v[k] = wins ? task : winners.v[k];
        }
        mm_store<N>(best + i, so_far);
        mm_store<N>(winner + i, winners);
    }
};
} // namespace

mm_status mm_cuda_max_magnitude(mm_stream *stream, float *best,
                                uint16_t *winner, const float *tuned,
                                const float *base, uint16_t task,
                                int64_t n_elems)
{
    MM_CUDA_REQUIRE("max_magnitude", stream && n_elems >= 0);
    MM_CUDA_REQUIRE("max_magnitude",
                    n_elems == 0 || (best && winner && tuned && base));
    return mm_flat(stream, "max_magnitude",
                   mm_fits<4>(best, winner, tuned, base),
                   max_magnitude{best, winner, tuned, base, task}, n_elems);
}
