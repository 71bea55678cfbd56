#include "src/tasks/resample_kernels.h"

static uint8_t rounded(int32_t sum)
{
    int32_t value = sum >> MM_WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void across(const mm_axis *axis, int channels, const uint8_t *const *in,
                   uint8_t *const *out)
{
    uint8_t *to = out[0];
    for (int64_t x = 0; x < axis->n; x++) {
        const int32_t *weights = axis->weights + x * axis->stride;
        const uint8_t *pixel = in[0] + axis->taps[x].first * channels;
        for (int c = 0; c < channels; c++) {
            int32_t sum = 1 << (MM_WEIGHT_BITS - 1);
            for (int64_t tap = 0; tap < axis->taps[x].n; tap++)
                sum += pixel[tap * channels + c] * weights[tap];
            *to++ = rounded(sum);
        }
    }
}

static void down(const mm_axis *axis, int64_t y, const uint8_t *in,
                 int64_t stride_bytes, int64_t n_bytes, uint8_t *out)
{
    enum { BLOCK = 64 };
    const int32_t *weights = axis->weights + y * axis->stride;
    for (int64_t i = 0; i < n_bytes; i += BLOCK) {
        int64_t n = n_bytes - i < BLOCK ? n_bytes - i : BLOCK;
        int32_t sums[BLOCK];
        for (int64_t k = 0; k < n; k++)
            sums[k] = 1 << (MM_WEIGHT_BITS - 1);
        for (int64_t tap = 0; tap < axis->taps[y].n; tap++)
            for (int64_t k = 0; k < n; k++)
                sums[k] += in[tap * stride_bytes + i + k] * weights[tap];
        for (int64_t k = 0; k < n; k++)
            out[i + k] = rounded(sums[k]);
    }
}

const mm_resample_kernels *mm_resample_kernels_plain(void)
{
    static const mm_resample_kernels kernels = {
        .name = "plain",
        .n_rows = {0, 1, 1, 1, 1},
        .across = across,
        .down = down,
    };
    return &kernels;
}
