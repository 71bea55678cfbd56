#ifndef MAGMAX_SRC_BASE_RNG_H
#define MAGMAX_SRC_BASE_RNG_H

#include <stdint.h>

/* A backend whose kernels draw numbers defines how its compiler marks the
 * functions that they call. */
#ifndef MM_RNG_INLINE
#define MM_RNG_INLINE static inline
#endif

/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). A draw is a pure function of
 * (seed, stream, counter), so what a run sees does not depend on the number of
 * ranks or threads, or on what was drawn before.
 *
 * Ranks    Local. Repeat: same bits everywhere. Errors: none.
 */

/** What the numbers are for; keeps uses of one seed independent. Values are
 * part of what makes a run repeatable: never renumber. */
typedef enum mm_rng_stream {
    MM_RNG_ORDER = 1,   /* order of samples in an epoch   */
    MM_RNG_AUGMENT = 2, /* crop boxes                     */
    MM_RNG_INIT = 3,    /* weights from scratch           */
    MM_RNG_MERGE = 4,   /* random mix                     */
    MM_RNG_DOMAIN = 5,  /* noise of a synthetic domain    */
    MM_RNG_HEAD = 6     /* orthonormal heads              */
} mm_rng_stream;

typedef struct mm_rng_key {
    uint32_t key[2];
} mm_rng_key;

MM_RNG_INLINE mm_rng_key mm_rng_key_of(uint64_t seed, mm_rng_stream stream)
{
    /* A seed of up to 32 bits keeps the halves apart; larger seeds mix. */
    mm_rng_key k = {
        {(uint32_t)seed, (uint32_t)(seed >> 32) ^ ((uint32_t)stream << 24)}};
    return k;
}

MM_RNG_INLINE void mm_rng_philox(mm_rng_key k, const uint32_t counter[4],
                                 uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1];
    uint32_t c2 = counter[2], c3 = counter[3];
    uint32_t k0 = k.key[0], k1 = k.key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/** 64 random bits for a two-word counter. */
MM_RNG_INLINE uint64_t mm_rng_bits(mm_rng_key k, uint64_t counter,
                                   uint64_t counter_high)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32),
                     (uint32_t)counter_high, (uint32_t)(counter_high >> 32)};
    uint32_t out[4];
    mm_rng_philox(k, c, out);
    return (uint64_t)out[1] << 32 | out[0];
}

/** Uniform in [0, n), n >= 1, by multiplication (bias below n / 2^32). */
MM_RNG_INLINE uint32_t mm_rng_below(mm_rng_key k, uint64_t counter, uint32_t n)
{
    uint32_t word = (uint32_t)mm_rng_bits(k, counter, 0);
    return (uint32_t)((uint64_t)word * n >> 32);
}

/** Uniform in [0, 1), 53 bits. */
MM_RNG_INLINE double mm_rng_uniform(mm_rng_key k, uint64_t counter,
                                    uint64_t counter_high)
{
    return (double)(mm_rng_bits(k, counter, counter_high) >> 11) * 0x1p-53;
}

/** Standard normal (Box and Muller 1958). */
double mm_rng_normal(mm_rng_key k, uint64_t counter, uint64_t counter_high);

#endif
