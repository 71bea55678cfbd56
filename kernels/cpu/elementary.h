#ifndef MAGMAX_KERNELS_CPU_ELEMENTARY_H
#define MAGMAX_KERNELS_CPU_ELEMENTARY_H

#include "kernels/ops.h"

#include <string.h>

/*
 * Elementary functions without branches or calls, so that a plain loop over
 * them becomes vector instructions. Polynomials are Chebyshev fits.
 */

static inline float mm_float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t mm_bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/** e^x within 2 units in the last place; results below 2^-125.5 become 0, for
 * arithmetic on subnormal numbers is slow on many processors. */
static inline float mm_exp(float x)
{
    x = x < -87.5f ? -87.5f : x; /* in this order NaN passes */
    x = x > 89.0f ? 89.0f : x;
    /* Adding 1.5 * 2^23 rounds to an integer, found in the low bits. */
    const float magic = 12582912.0f;
    float shifted = x * 1.44269504f + magic;
    uint32_t n = mm_bits_of_float(shifted) - 0x4B400000u;
    float whole = shifted - magic;
    float r = x - whole * 0.693359375f; /* ln 2 in two parts */
    r = r + whole * 2.12194440e-4f;
    float p = 1.39262508e-3f;
    p = p * r + 8.36323288e-3f;
    p = p * r + 4.16665542e-2f;
    p = p * r + 1.66665767e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    /* 2^n as 2 * 2^(n-1): n may be 128, and -126 makes the factor 0. */
    return 2.0f * p * mm_float_of_bits((n + 126u) << 23);
}

/** The normal distribution function, (1 + erf(x / sqrt 2)) / 2, within 1e-7;
 * relative precision in the negative tail down to x = -6, 0 below. */
static inline float mm_normal_cdf(float x)
{
    float t = (x < 0.0f ? -x : x) * 0.707106781f;
    bool far = t > 4.25f;
    t = far ? 4.25f : t;
    /* log(erfc(t)) / t on [0, 4.25] */
    float p = 8.60016656e-8f;
    p = p * t - 2.25740775e-6f;
    p = p * t + 2.62440293e-5f;
    p = p * t - 1.76654029e-4f;
    p = p * t + 7.40381215e-4f;
    p = p * t - 1.76961980e-3f;
    p = p * t + 2.03369584e-4f;
    p = p * t + 1.91533867e-2f;
    p = p * t - 1.02782745e-1f;
    p = p * t - 6.36618518e-1f;
    p = p * t - 1.12837919f;
    float tail = 0.5f * mm_exp(t * p);
    tail = far ? 0.0f : tail;
    return x < 0.0f ? tail : 1.0f - tail;
}

static inline float mm_gelu(float x)
{
    return x * mm_normal_cdf(x);
}

static inline float mm_gelu_slope(float x)
{
    float density = 0.398942280f * mm_exp(-0.5f * x * x);
    return mm_normal_cdf(x) + x * density;
}

static inline float mm_quick_gelu(float x)
{
    return x / (1.0f + mm_exp(-1.702f * x));
}

static inline float mm_quick_gelu_slope(float x)
{
    float a = -1.702f * x;
    float e = mm_exp(a > 88.0f ? 88.0f : a); /* finite: e s tends to 1 */
    float s = 1.0f / (1.0f + e);
    return s - a * s * (e * s); /* e s = 1 - s, without cancellation */
}

#endif
