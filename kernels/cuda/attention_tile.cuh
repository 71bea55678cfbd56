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

/** Rows of tokens, `ld` elements apart, and the tile that they are copied to.
 * A tile's rows are so few that offsets within it have 32 bits. */
template <typename T> struct mm_rows {
    T *tile;
    const T *tokens;
    int ld;
};

/** Start copying n_rows rows of each of N, zeros from n_there on; the whole
 * block. What a step copies of all of them lies side by side: sm_90 pays for
 * the first of adjacent copies. */
template <int N, typename T>
__device__ __forceinline__ void mm_copy_tokens(const mm_rows<T> (&all)[N],
                                               int n_rows, int n_there)
{
    const int step = (int)blockDim.x / mm_tile<T>::PARTS;
    const int begin = (int)threadIdx.x / mm_tile<T>::PARTS;
    const int col = (int)threadIdx.x % mm_tile<T>::PARTS * mm_wide<T>;
    T *to[N];
    const T *from[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        to[i] = all[i].tile + begin * mm_tile<T>::LD + col;
        from[i] = all[i].tokens + (begin * all[i].ld + col);
    }
#pragma unroll 1 /* registers are short, and nothing is waited for */
    for (int row = begin; row < n_rows; row += step) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            mm_copy_async(to[i], from[i], row < n_there);
            to[i] += step * mm_tile<T>::LD;
            from[i] += step * all[i].ld;
        }
    }
}

/** Round to tf32 what this thread has copied; nothing to do for bf16. */
template <typename T>
__device__ __forceinline__ void mm_round_tokens(T *tile, int n_rows)
{
    if (sizeof(T) == 2)
        return;
    constexpr int N = mm_wide<T>;
    const int step = (int)blockDim.x / mm_tile<T>::PARTS;
    tile += (int)threadIdx.x % mm_tile<T>::PARTS * N;
    for (int row = (int)threadIdx.x / mm_tile<T>::PARTS; row < n_rows;
         row += step) {
        mm_vec<T, N> part = mm_load<N>(tile + row * mm_tile<T>::LD);
#pragma unroll
        for (int k = 0; k < N; k++)
            part.v[k] = mm_tile_element(part.v[k]);
        mm_store<N>(tile + row * mm_tile<T>::LD, part);
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

/**
 * The warp's c tiles of tokens first..first + 15, COLS times 8 columns, times
 * factor[row half]; by way of 16 rows of a tile that only this warp uses, so
 * that a lane stores 16 bytes and a row's lie side by side.
 */
template <int COLS, typename T>
__device__ __forceinline__ void
mm_store_rows(T *to, int64_t ld, int first, int n_tokens,
              const float sum[COLS][4], const float factor[2], T *rows)
{
    constexpr int N = mm_wide<T>, PARTS = COLS * 8 / N, STEP = MM_WARP / PARTS;
    constexpr int LD = mm_tile<T>::LD;
#pragma unroll
    for (int j = 0; j < COLS; j += 2) {
        float c[2][4];
#pragma unroll
        for (int k = 0; k < 8; k++)
            c[k / 4][k % 4] = sum[j + k / 4][k % 4] * factor[k % 4 / 2];
        mm_store_c(rows + 8 * j, LD, c);
    }
    __syncwarp();
    const int row = mm_lane() / PARTS, col = mm_lane() % PARTS * N;
    rows += row * LD + col;
    to += (int64_t)(first + row) * (int)ld + col;
#pragma unroll
    for (int i = 0; i < MM_CHUNK; i += STEP)
        if (first + row + i < n_tokens)
            mm_store<N>(to + i * (int)ld, mm_load<N>(rows + i * LD));
}

#endif
