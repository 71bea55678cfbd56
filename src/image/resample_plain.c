/* The inner loop of bicubic resizing in plain C: the specification for
 * resample_avx2.c. */

#include "src/image/resample_kernels.h"

/* All lanes, needed or not: loops of a fixed length become vectors. */
void mm_weigh_plain(const mm_axis *axis, int64_t i, const uint8_t *in,
                    int64_t stride_bytes, int64_t n_bytes, uint8_t *out)
{
    const int32_t *weights = axis->weights + i * axis->stride;
    for (int64_t at = 0; at < n_bytes; at += MM_LANES) {
        int32_t sums[MM_LANES];
        for (int lane = 0; lane < MM_LANES; lane++)
            sums[lane] = 1 << (MM_WEIGHT_BITS - 1);
        for (int64_t tap = 0; tap < axis->taps[i].n; tap++) {
            const uint8_t *row = in + tap * stride_bytes + at;
            for (int lane = 0; lane < MM_LANES; lane++)
                sums[lane] += row[lane] * weights[tap];
        }
        for (int lane = 0; lane < MM_LANES; lane++) {
            int32_t v = sums[lane] >> MM_WEIGHT_BITS;
            out[at + lane] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
    }
}
