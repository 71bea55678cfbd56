#ifndef MAGMAX_KERNELS_CUDA_ATTENTION_TILE_CUH
#define MAGMAX_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

/*
 * Rows of tokens of one head of 64 in shared memory, and a warp's products with
 * 16 of them at a time. M: how many times 16 rows of its own the warp has.
 */

enum { MM_TILE = 64, MM_CHUNK = 16 };

template <typename T> struct mm_tile {
    enum {
        LD = MM_HEAD + mm_mma<T>::PAD, /* elements between rows */
        ELEMS = MM_TILE * LD,
        PARTS = MM_HEAD / mm_wide<T>,          /* 16 bytes each, of a row */
        STEPS = MM_HEAD / mm_mma<T>::K,        /* along a head            */
        CHUNK_STEPS = MM_CHUNK / mm_mma<T>::K, /* along 16 tokens         */
        COLS = MM_HEAD / 8                     /* c tiles of a head       */
    };
};

/** Start copying tokens [first, first + n_rows) of x, zeros from n_tokens on;
 * the whole block. */
template <typename T>
__device__ __forceinline__ void mm_copy_tokens(T *tile, const T *x, int64_t ld,
                                               int first, int n_rows,
                                               int n_tokens)
{
#pragma unroll 1 /* registers are short, and nothing is waited for */
    for (int i = (int)threadIdx.x; i < n_rows * mm_tile<T>::PARTS;
         i += (int)blockDim.x) {
        const int row = i / mm_tile<T>::PARTS;
        const int col = i % mm_tile<T>::PARTS * mm_wide<T>;
        const int token = min(first + row, n_tokens - 1);
        mm_copy_async(tile + row * mm_tile<T>::LD + col, x + (token * ld + col),
                      first + row < n_tokens);
    }
}

/** Round to tf32 what this thread has copied; nothing to do for bf16. */
template <typename T>
__device__ __forceinline__ void mm_round_tokens(T *tile, int n_rows)
{
    if (sizeof(T) == 2)
        return;
    constexpr int N = mm_wide<T>;
    for (int i = (int)threadIdx.x; i < n_rows * mm_tile<T>::PARTS;
         i += (int)blockDim.x) {
        T *at = tile + i / mm_tile<T>::PARTS * mm_tile<T>::LD +
                i % mm_tile<T>::PARTS * N;
        mm_vec<T, N> part = mm_load<N>(at);
#pragma unroll
        for (int k = 0; k < N; k++)
            part.v[k] = mm_tile_element(part.v[k]);
        mm_store<N>(at, part);
    }
}

/** 16 rows of a tile, as `a` of every step along the head. */
template <typename T>
__device__ __forceinline__ void mm_load_rows(uint32_t a[][4], const T *rows)
{
#pragma unroll
    for (int s = 0; s < mm_tile<T>::STEPS; s++)
        mm_load_a(a[s], rows + s * mm_mma<T>::K, mm_tile<T>::LD);
}

/** c [16, 16] += rows, in registers, times the transpose of 16 of a tile. */
template <typename T>
__device__ __forceinline__ void
mm_times_transpose(float c[2][4], const uint32_t a[][4], const T *tile)
{
#pragma unroll
    for (int s = 0; s < mm_tile<T>::STEPS; s++) {
        uint32_t b[2][2];
        mm_load_b_rows(b, tile + s * mm_mma<T>::K, mm_tile<T>::LD);
        mm_multiply(c[0], a[s], b[0], T());
        mm_multiply(c[1], a[s], b[1], T());
    }
}

/** The same with rows in shared memory: each of M times 16. */
template <int M, typename T>
__device__ __forceinline__ void
mm_rows_times_transpose(float c[M][2][4], const T *const rows[M], const T *tile)
{
#pragma unroll
    for (int s = 0; s < mm_tile<T>::STEPS; s++) {
        uint32_t b[2][2];
        mm_load_b_rows(b, tile + s * mm_mma<T>::K, mm_tile<T>::LD);
#pragma unroll
        for (int m = 0; m < M; m++) {
            uint32_t a[4];
            mm_load_a(a, rows[m] + s * mm_mma<T>::K, mm_tile<T>::LD);
            mm_multiply(c[m][0], a, b[0], T());
            mm_multiply(c[m][1], a, b[1], T());
        }
    }
}

/** sum [M 16, 64] += c [M 16, 16] times 16 rows of a tile. */
template <int M, typename T>
__device__ __forceinline__ void mm_add_times(float sum[M][MM_HEAD / 8][4],
                                             const float c[M][2][4],
                                             const T *tile)
{
#pragma unroll
    for (int s = 0; s < mm_tile<T>::CHUNK_STEPS; s++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
            mm_a_of_c(a[m], c[m], s, T());
#pragma unroll
        for (int j = 0; j < mm_tile<T>::COLS; j += 2) {
            uint32_t b[2][2];
            mm_load_b(b, tile + s * mm_mma<T>::K * mm_tile<T>::LD + 8 * j,
                      mm_tile<T>::LD);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mm_multiply(sum[m][j], a[m], b[0], T());
                mm_multiply(sum[m][j + 1], a[m], b[1], T());
            }
        }
    }
}

template <typename T>
__device__ __forceinline__ mm_vec<T, 2> mm_swap(mm_vec<T, 2> pair, int other)
{
    constexpr int WORDS = (int)sizeof pair / 4;
    uint32_t words[WORDS];
    memcpy(words, &pair, sizeof pair);
#pragma unroll
    for (int i = 0; i < WORDS; i++)
        words[i] = __shfl_xor_sync(0xFFFFFFFFu, words[i], other);
    memcpy(&pair, words, sizeof pair);
    return pair;
}

/** Lane t of the GROUP gets pair[t] of each lane, in the lanes' order. */
template <int GROUP, typename T>
__device__ __forceinline__ void mm_transpose_pairs(mm_vec<T, 2> pair[GROUP])
{
#pragma unroll
    for (int bit = 1; bit < GROUP; bit *= 2)
#pragma unroll
        for (int j = 0; j < GROUP; j++) {
            if (j & bit)
                continue;
            const bool upper = mm_lane() & bit;
            const mm_vec<T, 2> got =
                mm_swap(upper ? pair[j] : pair[j | bit], bit);
            pair[j] = upper ? got : pair[j];
            pair[j | bit] = upper ? pair[j | bit] : got;
        }
}

/**
 * The warp's c tiles of tokens first..first + 15, COLS times 8 columns, times
 * factor[row half]. The lanes of a row exchange what they have, so that each
 * stores 16 bytes (8, where bf16 has two tiles only) and no sector is written
 * in parts.
 */
template <int COLS, typename T>
__device__ __forceinline__ void
mm_store_rows(T *to, int64_t ld, int first, int n_tokens,
              const float sum[COLS][4], const float factor[2])
{
    constexpr int GROUP = sizeof(T) == 2 && COLS % 4 == 0 ? 4 : 2;
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < COLS; j += GROUP) {
            mm_vec<T, 2> pair[GROUP];
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                mm_set(pair[i].v[0], sum[j + i][2 * half] * factor[half]);
                mm_set(pair[i].v[1], sum[j + i][2 * half + 1] * factor[half]);
            }
            mm_transpose_pairs<GROUP>(pair);
            mm_vec<T, 2 * GROUP> part;
            memcpy(&part, pair, sizeof part);
            const int token = first + g + 8 * half;
            const int col = 8 * (j + t % GROUP) + t / GROUP * GROUP * 2;
            if (token < n_tokens)
                mm_store<2 * GROUP>(to + token * ld + col, part);
        }
}

#endif
