#include "src/tasks/resample_kernels.h"

#include <stddef.h>

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

/*
 * A weight has 24 bits, too many for the instruction that multiplies 16 bits
 * and adds two products (vpmaddwd). It is split, w = upper 2^15 + lower, and
 * the two sums meet at the end; modulo 2^32 that is the plain loop's sum.
 */

#define MM_AVX2 __attribute__((target("avx2")))
#define MM_AVX2_INLINE \
    static inline __attribute__((target("avx2"), always_inline))

/** Sums of eight outputs: upper and lower parts. */
typedef struct sums {
    __m256i upper, lower;
} sums;

MM_AVX2_INLINE sums start(void)
{
    return (sums){_mm256_setzero_si256(),
                  _mm256_set1_epi32(1 << (MM_WEIGHT_BITS - 1))};
}

/** Add two taps of each output, words side by side in `inputs`. */
MM_AVX2_INLINE void add_pair(sums *s, __m256i inputs, __m256i upper,
                             __m256i lower)
{
    s->upper = _mm256_add_epi32(s->upper, _mm256_madd_epi16(inputs, upper));
    s->lower = _mm256_add_epi32(s->lower, _mm256_madd_epi16(inputs, lower));
}

MM_AVX2_INLINE __m256i finish(sums s)
{
    __m256i sum =
        _mm256_add_epi32(_mm256_slli_epi32(s.upper, MM_LOWER_BITS), s.lower);
    return _mm256_srai_epi32(sum, MM_WEIGHT_BITS);
}

/** Rows whose pixels share 16 bytes when four pixels of each are loaded. */
MM_AVX2_INLINE int rows_together(int channels)
{
    return channels == 1 ? 4 : channels == 2 ? 2 : 1;
}

/** Four pixels, at byte `at`, of each row that shares 16 bytes. */
MM_AVX2_INLINE __m128i load_pixels(const uint8_t *const *rows, int64_t at,
                                   int channels)
{
    if (channels >= 3)
        return _mm_loadu_si128((const __m128i *)(rows[0] + at));
    if (channels == 2) {
        __m128i first = _mm_loadl_epi64((const __m128i *)(rows[0] + at));
        __m128i second = _mm_loadl_epi64((const __m128i *)(rows[1] + at));
        return _mm_unpacklo_epi64(first, second);
    }
    int32_t four[4];
    for (int r = 0; r < 4; r++)
        memcpy(&four[r], rows[r] + at, 4);
    return _mm_setr_epi32(four[0], four[1], four[2], four[3]);
}

/** Where load_pixels puts channel `lane % channels` of pixel 0, for the four
 * outputs of 16 bytes. */
MM_AVX2_INLINE int byte_of(int lane, int channels)
{
    return channels == 1   ? 4 * lane
           : channels == 2 ? 8 * (lane / 2) + lane % 2
                           : lane;
}

/** A shuffle that brings pixels `first` and first + 1 of each output side by
 * side, as words. */
MM_AVX2_INLINE __m256i pick(int first, int channels)
{
    char bytes[16];
    for (int lane = 0; lane < 4; lane++) {
        int at = byte_of(lane, channels) + first * channels;
        bytes[4 * lane] = (char)at;
        bytes[4 * lane + 1] = -1; /* zero */
        bytes[4 * lane + 2] = (char)(at + channels);
        bytes[4 * lane + 3] = -1;
    }
    if (channels == 3) /* the fourth output is none */
        memset(bytes + 12, -1, 4);
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
}

/** Write four outputs to the rows that share 16 bytes. */
MM_AVX2_INLINE void store_pixels(uint8_t *const *rows, int64_t x, int channels,
                                 uint32_t outputs)
{
    if (channels >= 3) { /* with 3, the next pixel overwrites the fourth byte */
        memcpy(rows[0] + channels * x, &outputs, 4);
        return;
    }
    for (int r = 0; r < rows_together(channels); r++) {
        memcpy(rows[r] + channels * x, &outputs, (size_t)channels);
        outputs >>= 8 * channels;
    }
}

MM_AVX2_INLINE void across_rows(const mm_axis *axis, int channels,
                                const uint8_t *const *in, uint8_t *const *out)
{
    const int step = rows_together(channels);
    const __m256i pick_first = pick(0, channels), pick_last = pick(2, channels);
    for (int64_t x = 0; x < axis->n; x++) {
        const int32_t *pairs = axis->pairs + x * axis->stride;
        int64_t at = axis->taps[x].first * channels;
        sums a = start(), b = start();
        for (int64_t tap = 0; tap < axis->taps[x].n; tap += 4) {
            __m256i pixels_a =
                _mm256_set_m128i(load_pixels(in + step, at, channels),
                                 load_pixels(in, at, channels));
            __m256i pixels_b =
                _mm256_set_m128i(load_pixels(in + 3 * step, at, channels),
                                 load_pixels(in + 2 * step, at, channels));
            __m256i upper = _mm256_set1_epi32(pairs[tap]);
            __m256i lower = _mm256_set1_epi32(pairs[tap + 1]);
            add_pair(&a, _mm256_shuffle_epi8(pixels_a, pick_first), upper,
                     lower);
            add_pair(&b, _mm256_shuffle_epi8(pixels_b, pick_first), upper,
                     lower);
            upper = _mm256_set1_epi32(pairs[tap + 2]);
            lower = _mm256_set1_epi32(pairs[tap + 3]);
            add_pair(&a, _mm256_shuffle_epi8(pixels_a, pick_last), upper,
                     lower);
            add_pair(&b, _mm256_shuffle_epi8(pixels_b, pick_last), upper,
                     lower);
            at += 4 * channels;
        }
        __m256i words = _mm256_packs_epi32(finish(a), finish(b));
        __m256i bytes = _mm256_packus_epi16(words, words);
        uint64_t even = (uint64_t)_mm256_extract_epi64(bytes, 0);
        uint64_t odd = (uint64_t)_mm256_extract_epi64(bytes, 2);
        store_pixels(out, x, channels, (uint32_t)even);
        store_pixels(out + step, x, channels, (uint32_t)odd);
        store_pixels(out + 2 * step, x, channels, (uint32_t)(even >> 32));
        store_pixels(out + 3 * step, x, channels, (uint32_t)(odd >> 32));
    }
}

/* One loop for each number of channels. */
MM_AVX2 static void across(const mm_axis *axis, int channels,
                           const uint8_t *const *in, uint8_t *const *out)
{
    switch (channels) {
    case 1:
        across_rows(axis, 1, in, out);
        break;
    case 2:
        across_rows(axis, 2, in, out);
        break;
    case 3:
        across_rows(axis, 3, in, out);
        break;
    default:
        across_rows(axis, 4, in, out);
        break;
    }
}

MM_AVX2 static void down(const mm_axis *axis, int64_t y, const uint8_t *in,
                         int64_t stride_bytes, int64_t n_bytes, uint8_t *out)
{
    const int32_t *pairs = axis->pairs + y * axis->stride;
    const __m256i zero = _mm256_setzero_si256();
    for (int64_t i = 0; i < n_bytes; i += 32) {
        const uint8_t *row = in + i;
        sums s[4] = {start(), start(), start(), start()};
        for (int64_t tap = 0; tap < axis->taps[y].n; tap += 2) {
            __m256i first = _mm256_loadu_si256((const __m256i *)row);
            __m256i second =
                _mm256_loadu_si256((const __m256i *)(row + stride_bytes));
            __m256i upper = _mm256_set1_epi32(pairs[tap]);
            __m256i lower = _mm256_set1_epi32(pairs[tap + 1]);
            __m256i low = _mm256_unpacklo_epi8(first, second);
            __m256i high = _mm256_unpackhi_epi8(first, second);
            add_pair(&s[0], _mm256_unpacklo_epi8(low, zero), upper, lower);
            add_pair(&s[1], _mm256_unpackhi_epi8(low, zero), upper, lower);
            add_pair(&s[2], _mm256_unpacklo_epi8(high, zero), upper, lower);
            add_pair(&s[3], _mm256_unpackhi_epi8(high, zero), upper, lower);
            row += 2 * stride_bytes;
        }
        __m256i words_low = _mm256_packs_epi32(finish(s[0]), finish(s[1]));
        __m256i words_high = _mm256_packs_epi32(finish(s[2]), finish(s[3]));
        __m256i bytes = _mm256_packus_epi16(words_low, words_high);
        if (i + 32 <= n_bytes) {
            _mm256_storeu_si256((__m256i *)(out + i), bytes);
        } else {
            uint8_t rest[32];
            _mm256_storeu_si256((__m256i *)rest, bytes);
            memcpy(out + i, rest, (size_t)(n_bytes - i));
        }
    }
}

const mm_resample_kernels *mm_resample_kernels_avx2(void)
{
    static const mm_resample_kernels kernels = {
        .name = "avx2",
        .n_rows = {0, 16, 8, 4, 4},
        .across = across,
        .down = down,
    };
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &kernels : NULL;
}

#else

const mm_resample_kernels *mm_resample_kernels_avx2(void)
{
    return NULL;
}

#endif
