#ifndef MAGMAX_KERNELS_CUDA_ATTENTION_TILE_CUH
#define MAGMAX_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

/*
 * Tiles of 64 tokens of one head of 64, for blocks of four warps; each warp has
 * 16 rows of the block's tile.
 */

enum { MM_TILE = 64, MM_TILE_THREADS = 128, MM_TILE_CHUNK = 16 };

template <typename T> struct mm_tile {
    enum {
        LD = MM_HEAD + mm_mma<T>::PAD,
        ELEMS = MM_TILE * LD,
        STEPS = MM_HEAD / mm_mma<T>::K,             /* along a head       */
        CHUNK_STEPS = MM_TILE_CHUNK / mm_mma<T>::K, /* along 16 tokens */
        COLS = MM_HEAD / 8                          /* c tiles of a head  */
    };
};

/** tile = tokens [first, first + 64) of x, zero from n_tokens on. */
template <typename T>
__device__ void mm_load_tile(T *tile, const T *x, int64_t ld, int first,
                             int n_tokens)
{
    constexpr int N = mm_wide<T>;
#pragma unroll
    for (int i = 0; i < MM_TILE * MM_HEAD / N / MM_TILE_THREADS; i++) {
        const int at = (i * MM_TILE_THREADS + (int)threadIdx.x) * N;
        const int row = at / MM_HEAD, col = at % MM_HEAD;
        mm_vec<T, N> part = {};
        if (first + row < n_tokens)
            part = mm_load<N>(x + (first + row) * ld + col);
#pragma unroll
        for (int k = 0; k < N; k++)
            part.v[k] = mm_tile_element(part.v[k]);
        mm_store<N>(tile + row * mm_tile<T>::LD + col, part);
    }
}

/** Also delta[row] = sum of x * y over the row, and lse2[row] = lse * log2(e).
 */
template <typename T>
__device__ void mm_load_dout(T *tile, float *delta, float *lse2,
                             const mm_head_view<T> &h, int first, int n_tokens)
{
    constexpr int N = mm_wide<T>, LANES = MM_HEAD / N;
#pragma unroll
    for (int i = 0; i < MM_TILE * MM_HEAD / N / MM_TILE_THREADS; i++) {
        const int at = (i * MM_TILE_THREADS + (int)threadIdx.x) * N;
        const int row = at / MM_HEAD, col = at % MM_HEAD;
        mm_vec<T, N> part = {}, out = {};
        if (first + row < n_tokens) {
            part = mm_load<N>(h.dout + (first + row) * h.out_ld + col);
            out = mm_load<N>(h.out + (first + row) * h.out_ld + col);
        }
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < N; k++) {
            sum += mm_float_of(part.v[k]) * mm_float_of(out.v[k]);
            part.v[k] = mm_tile_element(part.v[k]);
        }
        mm_store<N>(tile + row * mm_tile<T>::LD + col, part);
#pragma unroll
        for (int other = LANES / 2; other > 0; other /= 2)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, other);
        if (mm_lane() % LANES == 0) {
            delta[row] = sum;
            lse2[row] =
                first + row < n_tokens ? h.lse[first + row] * MM_LOG2_E : 0.0f;
        }
    }
}

/** The warp's 16 rows of a tile, as `a` of every step along the head. */
template <typename T>
__device__ __forceinline__ void mm_load_rows(uint32_t a[][4], const T *tile)
{
    const int row = (int)(threadIdx.x / MM_WARP) * 16;
#pragma unroll
    for (int s = 0; s < mm_tile<T>::STEPS; s++)
        mm_load_a(a[s], tile + row * mm_tile<T>::LD + s * mm_mma<T>::K,
                  mm_tile<T>::LD);
}

/** c [16, 16] += rows times the transpose of 16 rows of a tile. */
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

/** sum [16, 64] += c [16, 16] times 16 rows of a tile. */
template <typename T>
__device__ __forceinline__ void mm_add_times(float sum[][4],
                                             const float c[2][4], const T *tile)
{
#pragma unroll
    for (int s = 0; s < mm_tile<T>::CHUNK_STEPS; s++) {
        uint32_t a[4];
        mm_a_of_c(a, c, s, T());
#pragma unroll
        for (int j = 0; j < mm_tile<T>::COLS; j += 2) {
            uint32_t b[2][2];
            mm_load_b(b, tile + s * mm_mma<T>::K * mm_tile<T>::LD + 8 * j,
                      mm_tile<T>::LD);
            mm_multiply(sum[j], a, b[0], T());
            mm_multiply(sum[j + 1], a, b[1], T());
        }
    }
}

/** Rows of sum [16, 64] to tokens from `first` on, times factor[row half]. */
template <typename T>
__device__ __forceinline__ void
mm_store_rows(T *to, int64_t ld, int first, int n_tokens, const float sum[][4],
              const float factor[2])
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int token =
            first + (int)(threadIdx.x / MM_WARP) * 16 + g + 8 * half;
        if (token >= n_tokens)
            continue;
#pragma unroll
        for (int j = 0; j < mm_tile<T>::COLS; j++) {
            mm_vec<float, 2> pair;
            pair.v[0] = sum[j][2 * half] * factor[half];
            pair.v[1] = sum[j][2 * half + 1] * factor[half];
            mm_store_floats<2>(to + token * ld + 8 * j + 2 * t, pair);
        }
    }
}

#endif
