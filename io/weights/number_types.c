/* Converts stored numbers of all types to fp32, and fp32 to the types that are
 * written; finds numbers that are not finite. */

#include "io/weights/number_types.h"

#include "src/base/status.h"

#include <stdbool.h>
#include <string.h>

/* Numbers are copied between files and memory as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "files are little-endian, and so must the machine be");

/* Loops run in blocks of constant length, which compilers vectorise even where
 * they optimise for size. */
enum { BLOCK = 256 };

static const struct {
    const char *name;
    int n_bytes;
} types[] = {
    [MM_ELEM_F64] = {"F64", 8},         [MM_ELEM_F32] = {"F32", 4},
    [MM_ELEM_F16] = {"F16", 2},         [MM_ELEM_BF16] = {"BF16", 2},
    [MM_ELEM_F8_E4M3] = {"F8_E4M3", 1}, [MM_ELEM_F8_E5M2] = {"F8_E5M2", 1},
    [MM_ELEM_F8_E8M0] = {"F8_E8M0", 1}, [MM_ELEM_I64] = {"I64", 8},
    [MM_ELEM_I32] = {"I32", 4},         [MM_ELEM_I16] = {"I16", 2},
    [MM_ELEM_I8] = {"I8", 1},           [MM_ELEM_U64] = {"U64", 8},
    [MM_ELEM_U32] = {"U32", 4},         [MM_ELEM_U16] = {"U16", 2},
    [MM_ELEM_U8] = {"U8", 1},           [MM_ELEM_BOOL] = {"BOOL", 1},
    [MM_ELEM_OTHER] = {"?", 0},
};

int mm_elem_n_bytes(mm_elem_type type)
{
    return types[type].n_bytes;
}

const char *mm_elem_name(mm_elem_type type)
{
    return types[type].name;
}

static inline float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* For all that C converts by itself, to the nearest. */
#define from_number(value) ((float)(value))

static inline float from_bool(uint8_t value)
{
    return value != 0 ? 1.0f : 0.0f;
}

static inline float from_bf16(uint16_t half)
{
    return float_of((uint32_t)half << 16);
}

/* The exponent's bias differs by 112: shifted into place and multiplied by
 * 2^112, normal and subnormal numbers come out exactly; the largest exponent
 * stands for infinity and NaN and is set apart. */
static inline float from_f16(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
    float scaled = float_of(magnitude) * 0x1p112f;
    return float_of(bits_of(scaled) | special |
                    (uint32_t)(half & 0x8000) << 16);
}

static inline float from_f8_e5m2(uint8_t byte)
{
    return from_f16((uint16_t)(byte << 8));
}

/* As from_f16; the bias differs by 120. */
static inline float from_f8_e4m3(uint8_t byte)
{
    uint32_t magnitude = byte & 0x7f;
    uint32_t special = magnitude == 0x7f ? 0x7fc00000u : 0;
    float scaled = float_of(magnitude << 20) * 0x1p120f;
    return float_of(bits_of(scaled) | special | (uint32_t)(byte & 0x80) << 24);
}

/* 2^(byte - 127): an exponent, but for 2^-127, which is subnormal. */
static inline float from_f8_e8m0(uint8_t byte)
{
    if (byte == 0xff)
        return float_of(0x7fc00000u);
    return float_of(byte ? (uint32_t)byte << 23 : 0x00400000u);
}

#define CONVERT_ALL(in_type, out_type, convert)     \
    do {                                            \
        const in_type *restrict from_ = in;         \
        out_type *restrict to_ = out;               \
        int64_t i = 0;                              \
        for (; i + BLOCK <= n_elems; i += BLOCK)    \
            for (int j = 0; j < BLOCK; j++)         \
                to_[i + j] = convert(from_[i + j]); \
        for (; i < n_elems; i++)                    \
            to_[i] = convert(from_[i]);             \
    } while (0)

#define CASE(type, in_type, convert)          \
    case MM_ELEM_##type:                      \
        CONVERT_ALL(in_type, float, convert); \
        break

void mm_elem_to_f32(mm_elem_type type, const void *in, float *out,
                    int64_t n_elems)
{
    switch (type) {
        CASE(F64, double, from_number);
        CASE(F16, uint16_t, from_f16);
        CASE(BF16, uint16_t, from_bf16);
        CASE(F8_E4M3, uint8_t, from_f8_e4m3);
        CASE(F8_E5M2, uint8_t, from_f8_e5m2);
        CASE(F8_E8M0, uint8_t, from_f8_e8m0);
        CASE(I64, int64_t, from_number);
        CASE(I32, int32_t, from_number);
        CASE(I16, int16_t, from_number);
        CASE(I8, int8_t, from_number);
        CASE(U64, uint64_t, from_number);
        CASE(U32, uint32_t, from_number);
        CASE(U16, uint16_t, from_number);
        CASE(U8, uint8_t, from_number);
        CASE(BOOL, uint8_t, from_bool);
    case MM_ELEM_F32:
        memcpy(out, in, (size_t)n_elems * sizeof *out);
        break;
    case MM_ELEM_OTHER:
        MM_ASSERT(false && "numbers");
    }
}

/* The lowest bit that stays decides a tie; a carry runs into the exponent, and
 * beyond the largest number it makes infinity. NaN comes out as one, or as
 * infinity: it is refused afterwards. */
static inline uint16_t to_bf16(float value)
{
    uint32_t bits = bits_of(value) & 0x7fffffffu;
    uint32_t half =
        bits > 0x7f800000u ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(half | (bits_of(value) >> 16 & 0x8000));
}

/* As to_bf16, with the exponent's bias moved by 112. Below 2^-14 adding 0.5
 * leaves the subnormal's bits, rounded, at the lower end of the sum. */
static inline uint16_t to_f16(float value)
{
    uint32_t bits = bits_of(value) & 0x7fffffffu;
    uint32_t normal = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
    uint32_t subnormal = bits_of(float_of(bits) + 0.5f) - 0x3f000000u;
    uint32_t half = bits < 0x38800000u    ? subnormal
                    : bits >= 0x477ff000u ? 0x7c00
                                          : normal;
    return (uint16_t)(half | (bits_of(value) >> 16 & 0x8000));
}

static int64_t first_infinite(const uint16_t *halves, uint16_t infinity,
                              int64_t n_elems)
{
    int64_t i = 0;
    for (; i + BLOCK <= n_elems; i += BLOCK) {
        unsigned any = 0;
        for (int j = 0; j < BLOCK; j++)
            any |= (halves[i + j] & infinity) == infinity;
        if (any)
            break;
    }
    for (; i < n_elems; i++)
        if ((halves[i] & infinity) == infinity)
            return i;
    return -1;
}

int64_t mm_elem_from_f32(mm_elem_type type, const float *in, void *out,
                         int64_t n_elems)
{
    if (type == MM_ELEM_F16) {
        CONVERT_ALL(float, uint16_t, to_f16);
        return first_infinite(out, 0x7c00, n_elems);
    }
    if (type == MM_ELEM_BF16) {
        CONVERT_ALL(float, uint16_t, to_bf16);
        return first_infinite(out, 0x7f80, n_elems);
    }
    MM_ASSERT(type == MM_ELEM_F32);
    memcpy(out, in, (size_t)n_elems * sizeof *in);
    return mm_first_nonfinite(in, n_elems);
}

static inline uint32_t is_nonfinite(float value)
{
    return (bits_of(value) & 0x7f800000u) == 0x7f800000u;
}

int64_t mm_first_nonfinite(const float *values, int64_t n_elems)
{
    int64_t i = 0;
    for (; i + BLOCK <= n_elems; i += BLOCK) {
        uint32_t any = 0;
        for (int j = 0; j < BLOCK; j++)
            any |= is_nonfinite(values[i + j]);
        if (any)
            break;
    }
    for (; i < n_elems; i++)
        if (is_nonfinite(values[i]))
            return i;
    return -1;
}
