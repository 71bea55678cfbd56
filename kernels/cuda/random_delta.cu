/* The fold of a random mix: each element's task is drawn once, and its change
 * taken when that task comes. */

#define MM_RNG_INLINE static __host__ __device__ inline
#include "kernels/cuda/flat.cuh"

#include "src/base/rng.h"

namespace
{
struct random_delta {
    float *tau;
    uint16_t *winner;
    const float *tuned, *base;
    mm_rng_key key;
    int64_t first_elem;
    uint16_t task, n_tasks;
    template <int N> __device__ void run(int64_t i) const
    {
        mm_vec<uint16_t, N> winners;
        if (task == 0) {
#pragma unroll
            for (int k = 0; k < N; k++)
                winners.v[k] = (uint16_t)mm_rng_below(
                    key, (uint64_t)(first_elem + i + k), n_tasks);
            mm_store<N>(winner + i, winners);
        } else {
            winners = mm_load<N>(winner + i);
        }
        mm_vec<float, N> mix = mm_load<N>(tau + i);
        const mm_vec<float, N> t = mm_load<N>(tuned + i);
        const mm_vec<float, N> b = mm_load<N>(base + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            mix.v[k] = winners.v[k] == task ? t.v[k] - b.v[k] : mix.v[k];
        mm_store<N>(tau + i, mix);
    }
};
} // namespace

mm_status mm_cuda_random_delta(mm_stream *stream, float *tau, uint16_t *winner,
                               const float *tuned, const float *base,
                               uint16_t task, uint16_t n_tasks, uint64_t seed,
                               int64_t first_elem, int64_t n_elems)
{
    MM_CUDA_REQUIRE("random_delta", stream && first_elem >= 0 && n_elems >= 0);
    MM_CUDA_REQUIRE("random_delta", n_tasks > 0 && task < n_tasks);
    MM_CUDA_REQUIRE("random_delta",
                    n_elems == 0 || (tau && winner && tuned && base));
    const mm_rng_key key = mm_rng_key_of(seed, MM_RNG_MERGE);
    return mm_flat(
        stream, "random_delta", mm_fits<4>(tau, winner, tuned, base),
        random_delta{tau, winner, tuned, base, key, first_elem, task, n_tasks},
        n_elems);
}
