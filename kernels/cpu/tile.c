/* A product of small tiles in registers, and packing panels for it; attention
 * uses it. */

#include "kernels/cpu/tile.h"

#define INLINE static inline __attribute__((always_inline))

/* n_rows, and one of a_row and a_k, are constants where this is inlined. */
INLINE void tile(const int n_rows, int64_t a_row, int64_t a_k, MM_TILE_ARGS)
{
    mm_vec sum[MM_TILE_ROWS][2];
    const mm_vec zero = {0};
#pragma GCC unroll 6
    for (int i = 0; i < n_rows; i++) {
        sum[i][0] = zero;
        sum[i][1] = zero;
        if (add) {
            __builtin_prefetch(c + i * ldc);
            __builtin_prefetch(c + i * ldc + MM_TILE_COLS - 1);
        }
    }
#pragma GCC unroll 4
    for (int64_t k = 0; k < n_k; k++) {
        mm_vec b0 = *(const mm_vec *)b;
        mm_vec b1 = *(const mm_vec *)(b + MM_VEC);
#pragma GCC unroll 6
        for (int i = 0; i < n_rows; i++) {
            mm_vec x = a[i * a_row] - zero; /* broadcast */
            sum[i][0] += x * b0;
            sum[i][1] += x * b1;
        }
        a += a_k;
        b += MM_TILE_COLS;
    }
#pragma GCC unroll 6
    for (int i = 0; i < n_rows; i++) {
        mm_vec_unaligned *out = (mm_vec_unaligned *)(c + i * ldc);
        if (add) {
            sum[i][0] += out[0];
            sum[i][1] += out[1];
        }
        out[0] = sum[i][0];
        out[1] = sum[i][1];
    }
}

#define CASE(n, row, k)                          \
    case n:                                      \
        tile(n, row, k, n_k, a, b, c, ldc, add); \
        break;
#define CASES(row, k) \
    CASE(1, row, k)   \
    CASE(2, row, k)   \
    CASE(3, row, k) CASE(4, row, k) CASE(5, row, k) CASE(6, row, k)

void MM_CPU(tile_rows)(int n_rows, int64_t a_row, MM_TILE_ARGS)
{
    switch (n_rows) {
        CASES(a_row, 1)
    default:
        MM_ASSERT(false && "rows of a tile");
    }
}

void MM_CPU(tile_cols)(int n_rows, int64_t a_k, MM_TILE_ARGS)
{
    switch (n_rows) {
        CASES(1, a_k)
    default:
        MM_ASSERT(false && "rows of a tile");
    }
}

typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef float pair __attribute__((vector_size(8), aligned(4), may_alias));

/* dst[k*width + i] = src[i*ld + k] for 4 values of i and of k. */
INLINE void transpose_4x4(float *dst, int width, const float *src, int64_t ld)
{
    quad r0 = *(const quad *)src, r1 = *(const quad *)(src + ld);
    quad r2 = *(const quad *)(src + 2 * ld), r3 = *(const quad *)(src + 3 * ld);
    quad lo01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
    quad lo23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
    quad hi01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    quad hi23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
    *(quad *)dst = __builtin_shufflevector(lo01, lo23, 0, 1, 4, 5);
    *(quad *)(dst + width) = __builtin_shufflevector(lo01, lo23, 2, 3, 6, 7);
    *(quad *)(dst + 2 * width) =
        __builtin_shufflevector(hi01, hi23, 0, 1, 4, 5);
    *(quad *)(dst + 3 * width) =
        __builtin_shufflevector(hi01, hi23, 2, 3, 6, 7);
}

INLINE void transpose_2x4(float *dst, int width, const float *src, int64_t ld)
{
    quad r0 = *(const quad *)src, r1 = *(const quad *)(src + ld);
    quad lo = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
    quad hi = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    *(pair *)dst = __builtin_shufflevector(lo, lo, 0, 1);
    *(pair *)(dst + width) = __builtin_shufflevector(lo, lo, 2, 3);
    *(pair *)(dst + 2 * width) = __builtin_shufflevector(hi, hi, 0, 1);
    *(pair *)(dst + 3 * width) = __builtin_shufflevector(hi, hi, 2, 3);
}

void MM_CPU(pack_rows)(float *dst, const float *src, int64_t ld, int n_valid,
                       int width, int64_t n_k)
{
    int64_t k = 0;
    int n_quads = n_valid / 4 * 4;
    int n_pairs = n_valid / 2 * 2;
    for (; k + 4 <= n_k; k += 4) {
        float *out = dst + k * width;
        int i = 0;
        for (; i < n_quads; i += 4)
            transpose_4x4(out + i, width, src + i * ld + k, ld);
        for (; i < n_pairs; i += 2)
            transpose_2x4(out + i, width, src + i * ld + k, ld);
        for (; i < width; i++)
            for (int q = 0; q < 4; q++)
                out[q * width + i] = i < n_valid ? src[i * ld + k + q] : 0.0f;
    }
    for (; k < n_k; k++)
        for (int i = 0; i < width; i++)
            dst[k * width + i] = i < n_valid ? src[i * ld + k] : 0.0f;
}

INLINE void copy_cols(float *dst, const float *src, int64_t ld, const int width,
                      int64_t n_k)
{
    for (int64_t k = 0; k < n_k; k++)
        memcpy(dst + k * width, src + k * ld, (size_t)width * sizeof *dst);
}

void MM_CPU(pack_cols)(float *dst, const float *src, int64_t ld, int n_valid,
                       int width, int64_t n_k)
{
    if (n_valid == width && width == MM_TILE_COLS) {
        copy_cols(dst, src, ld, MM_TILE_COLS, n_k);
    } else if (n_valid == width && width == MM_TILE_ROWS) {
        copy_cols(dst, src, ld, MM_TILE_ROWS, n_k);
    } else {
        for (int64_t k = 0; k < n_k; k++)
            for (int i = 0; i < width; i++)
                dst[k * width + i] = i < n_valid ? src[k * ld + i] : 0.0f;
    }
}
