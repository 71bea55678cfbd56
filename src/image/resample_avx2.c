/* The inner loop of bicubic resizing with AVX2; the same bytes as
 * resample_plain.c. */

#include "src/image/resample_kernels.h"

#include <stddef.h>

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define MM_AVX2 __attribute__((target("avx2")))
#define MM_AVX2_INLINE \
    static inline __attribute__((target("avx2"), always_inline))

/*
 * A weight has 24 bits, and vectors multiply 8 and 16 bits fastest, adding two
 * adjacent products. So w = upper 2^16 + lower: bytes times `upper` add up
 * in 16 bits, bytes times `lower` in 32, and overflow does no harm, since all
 * is modulo 2^32 in the end and the whole sum fits.
 */
typedef struct sums {
    __m256i upper[2], lower[4];
} sums;

MM_AVX2_INLINE __m256i broadcast(const void *four_bytes)
{
    int32_t bits;
    memcpy(&bits, four_bytes, sizeof bits);
    return _mm256_set1_epi32(bits);
}

MM_AVX2_INLINE sums add_pair(sums s, __m256i first, __m256i second,
                             const mm_tap_pair *pair)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i upper = broadcast(pair->upper);
    const __m256i lower = broadcast(pair->lower);
    const __m256i both[2] = {_mm256_unpacklo_epi8(first, second),
                             _mm256_unpackhi_epi8(first, second)};
    for (int h = 0; h < 2; h++) {
        __m256i a = _mm256_unpacklo_epi8(both[h], zero);
        __m256i b = _mm256_unpackhi_epi8(both[h], zero);
        s.lower[2 * h] =
            _mm256_add_epi32(s.lower[2 * h], _mm256_madd_epi16(a, lower));
        s.lower[2 * h + 1] =
            _mm256_add_epi32(s.lower[2 * h + 1], _mm256_madd_epi16(b, lower));
        s.upper[h] =
            _mm256_add_epi16(s.upper[h], _mm256_maddubs_epi16(both[h], upper));
    }
    return s;
}

/** Rounded and clamped bytes, in the order of the rows'. */
MM_AVX2_INLINE __m256i finish(const sums *s)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i words[2];
    for (int h = 0; h < 2; h++) {
        __m256i a = _mm256_add_epi32(s->lower[2 * h],
                                     _mm256_unpacklo_epi16(zero, s->upper[h]));
        __m256i b = _mm256_add_epi32(s->lower[2 * h + 1],
                                     _mm256_unpackhi_epi16(zero, s->upper[h]));
        words[h] = _mm256_packs_epi32(_mm256_srai_epi32(a, MM_WEIGHT_BITS),
                                      _mm256_srai_epi32(b, MM_WEIGHT_BITS));
    }
    return _mm256_packus_epi16(words[0], words[1]);
}

MM_AVX2 static void weigh(const mm_axis *axis, int64_t i, const uint8_t *in,
                          int64_t stride_bytes, int64_t n_bytes, uint8_t *out)
{
    const mm_tap_pair *pairs = axis->pairs + i * axis->stride / 2;
    const int64_t n_taps = axis->taps[i].n;
    const __m256i half = _mm256_set1_epi32(1 << (MM_WEIGHT_BITS - 1));
    const __m256i zero = _mm256_setzero_si256();
    for (int64_t at = 0; at < n_bytes; at += MM_LANES) {
        const uint8_t *row = in + at;
        sums s = {{zero, zero}, {half, half, half, half}};
        for (int64_t tap = 0; tap < n_taps; tap += 2) {
            __m256i first = _mm256_loadu_si256((const __m256i *)row);
            row += stride_bytes;
            __m256i second = _mm256_loadu_si256((const __m256i *)row);
            row += stride_bytes;
            s = add_pair(s, first, second, &pairs[tap / 2]);
        }
        _mm256_storeu_si256((__m256i *)(out + at), finish(&s));
    }
}

mm_weigh *mm_weigh_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? weigh : NULL;
}

#else

mm_weigh *mm_weigh_avx2(void)
{
    return NULL;
}

#endif
