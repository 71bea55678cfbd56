#include "io/convert.h"

#include "src/base/status.h"

#include <string.h>

/* Numbers are copied between files and memory as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "files are little-endian, and so must the machine be");

/* Loops run in blocks of constant length, which compilers vectorise even where
 * they are told to keep code small. */
enum { BLOCK = 256 };

int mm_elem_n_bytes(mm_elem_type type)
{
    static const int n_bytes[] = {8, 4, 2, 2, 0};
    return n_bytes[type];
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

static inline float from_f64(double value)
{
    return (float)value;
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

#define CONVERT_ALL(in_type, from)               \
    do {                                         \
        const in_type *restrict from_ = in;      \
        float *restrict to_ = out;               \
        int64_t i = 0;                           \
        for (; i + BLOCK <= n_elems; i += BLOCK) \
            for (int j = 0; j < BLOCK; j++)      \
                to_[i + j] = from(from_[i + j]); \
        for (; i < n_elems; i++)                 \
            to_[i] = from(from_[i]);             \
    } while (0)

void mm_convert_to_f32(mm_elem_type type, const void *in, float *out,
                       int64_t n_elems)
{
    MM_ASSERT(type != MM_ELEM_OTHER);
    if (type == MM_ELEM_F64)
        CONVERT_ALL(double, from_f64);
    else if (type == MM_ELEM_F16)
        CONVERT_ALL(uint16_t, from_f16);
    else if (type == MM_ELEM_BF16)
        CONVERT_ALL(uint16_t, from_bf16);
    else
        memcpy(out, in, (size_t)n_elems * sizeof *out);
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
