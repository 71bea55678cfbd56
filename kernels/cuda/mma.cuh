#ifndef MAGMAX_KERNELS_CUDA_MMA_CUH
#define MAGMAX_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/approximate.cuh"
#include "kernels/cuda/launch.cuh"

/*
 * Tensor cores: a warp multiplies a [16, K] by b [K, 8], K = 16 for bf16 and 8
 * for tf32, and adds to c [16, 8] in fp32. Each instruction has a body for the
 * CPU that follows the layouts of the PTX manual. With g = lane / 4 and
 * t = lane % 4:
 *
 *   c      (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
 *   a      (g, t) (g+8, t) (g, t+K/2) (g+8, t+K/2), and b (t, g) (t+K/2, g);
 *          for bf16 a register holds two elements, k = 2t and 2t+1.
 */

template <typename T> struct mm_mma;

template <> struct mm_mma<mm_bf16> {
    enum {
        K = 16,
        PAD = 8
    }; /* PAD: elements between rows, against conflicts */
};

template <> struct mm_mma<float> {
    enum { K = 8, PAD = 4 };
};

#ifdef __CUDACC__

__device__ __forceinline__ void mm_multiply(float c[4], const uint32_t a[4],
                                            const uint32_t b[2], mm_bf16)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mm_multiply(float c[4], const uint32_t a[4],
                                            const uint32_t b[2], float)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/** To tf32, nearest, ties away from zero. */
__device__ __forceinline__ uint32_t mm_tf32_of(float x)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

/** Two bf16 numbers in a register. */
__device__ __forceinline__ uint32_t mm_pack(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

/** Four 8x8 matrices; lane 8 i + r points at row r of matrix i, 16-byte
 * aligned. r[i]: elements 2t and 2t+1 of row g, or when TRANSPOSED of column g.
 */
template <bool TRANSPOSED>
__device__ __forceinline__ void mm_load_matrices(uint32_t r[4],
                                                 const mm_bf16 *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (TRANSPOSED)
        asm volatile(
            "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, "
            "[%4];"
            : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
            : "r"(at)
            : "memory");
    else
        asm volatile(
            "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
            : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
            : "r"(at)
            : "memory");
}

#if !defined __CUDA_ARCH__ || __CUDA_ARCH__ >= 900

/** The reverse, not transposed. */
__device__ __forceinline__ void mm_store_matrices(mm_bf16 *row,
                                                  const uint32_t r[4])
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
                 :
                 : "r"(at), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

#endif

#else

struct mm_fragments {
    uint32_t a[4], b[2];
    float c[4];
};

template <typename T> inline float mm_element(const uint32_t *reg, int half);

template <> inline float mm_element<mm_bf16>(const uint32_t *reg, int half)
{
    return __uint_as_float(half ? *reg & 0xFFFF0000u : *reg << 16);
}

template <> inline float mm_element<float>(const uint32_t *reg, int)
{
    /* The hardware reads the upper 19 bits. */
    return __uint_as_float(*reg & 0xFFFFE000u);
}

/** Sums leave a tensor core cut off, not rounded, as was measured on A100s and
 * H100s (Fasi, Higham et al., doi.org/10.7717/peerj-cs.330). */
inline float mm_cut(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= ~((1ull << 29) - 1);
    memcpy(&x, &bits, sizeof x);
    return (float)x;
}

/** The whole warp's product, of what its lanes show. */
template <typename T> inline void mm_multiply_warp(mm_emu::slot *all)
{
    enum { K = mm_mma<T>::K, IN_REGISTER = K / 8 };
    typedef double two __attribute__((vector_size(16)));
    mm_fragments of[32];
    double a[16][K], b[K][8];
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4;
        memcpy(&of[lane], all[lane].bytes, sizeof of[lane]);
        for (int upper = 0; upper < 2; upper++)
            for (int half = 0; half < IN_REGISTER; half++) {
                const int k = upper * K / 2 + t * IN_REGISTER + half;
                const uint32_t *of_a = &of[lane].a[2 * upper];
                a[g][k] = (double)mm_element<T>(&of_a[0], half);
                a[g + 8][k] = (double)mm_element<T>(&of_a[1], half);
                b[k][g] = (double)mm_element<T>(&of[lane].b[upper], half);
            }
    }
    for (int row = 0; row < 16; row++) {
        two sum[4];
        for (int t = 0; t < 4; t++) {
            const float *c = &of[row % 8 * 4 + t].c[row / 8 * 2];
            sum[t] = two{(double)c[0], (double)c[1]};
        }
        for (int k = 0; k < K; k++)
#pragma GCC unroll 4
            for (int t = 0; t < 4; t++)
                sum[t] += a[row][k] * two{b[k][2 * t], b[k][2 * t + 1]};
        for (int t = 0; t < 4; t++) {
            float *c = &of[row % 8 * 4 + t].c[row / 8 * 2];
            c[0] = mm_cut(sum[t][0]);
            c[1] = mm_cut(sum[t][1]);
        }
    }
    for (int lane = 0; lane < 32; lane++)
        memcpy(all[lane].bytes, of[lane].c, sizeof of[lane].c);
}

template <typename T>
inline void mm_multiply(float c[4], const uint32_t a[4], const uint32_t b[2], T)
{
    mm_fragments mine;
    memcpy(mine.a, a, sizeof mine.a);
    memcpy(mine.b, b, sizeof mine.b);
    memcpy(mine.c, c, sizeof mine.c);
    const mm_emu::slot *all = mm_emu::meet("mma.sync", 0xFFFFFFFFu, &mine,
                                           sizeof mine, mm_multiply_warp<T>);
    memcpy(c, all[mm_lane()].bytes, sizeof mine.c);
}

inline uint32_t mm_tf32_of(float x)
{
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7F800000u) == 0x7F800000u)
        return bits;
    return (bits + 0x1000u) & 0xFFFFE000u;
}

inline uint32_t mm_pack(float low, float high)
{
    mm_bf16 pair[2];
    mm_set(pair[0], low);
    mm_set(pair[1], high);
    uint32_t bits;
    memcpy(&bits, pair, sizeof bits);
    return bits;
}

template <bool TRANSPOSED>
inline void mm_load_matrices(uint32_t r[4], const mm_bf16 *row)
{
    const mm_emu::slot *all =
        mm_emu::meet(TRANSPOSED ? "ldmatrix.trans" : "ldmatrix", 0xFFFFFFFFu,
                     &row, sizeof row);
    const int g = mm_lane() / 4, t = mm_lane() % 4;
    if ((uintptr_t)row % 16 != 0)
        mm_emu::die("ldmatrix of a row that is not 16-byte aligned");
    for (int i = 0; i < 4; i++) {
        mm_bf16 pair[2];
        for (int half = 0; half < 2; half++) {
            const int line = TRANSPOSED ? 2 * t + half : g;
            const mm_bf16 *from;
            memcpy(&from, all[8 * i + line].bytes, sizeof from);
            pair[half] = from[TRANSPOSED ? g : 2 * t + half];
        }
        memcpy(&r[i], pair, sizeof r[i]);
    }
}

inline void mm_store_matrices(mm_bf16 *row, const uint32_t r[4])
{
    const mm_emu::slot *all =
        mm_emu::meet("stmatrix", 0xFFFFFFFFu, &row, sizeof row);
    const int g = mm_lane() / 4, t = mm_lane() % 4;
    if ((uintptr_t)row % 16 != 0)
        mm_emu::die("stmatrix of a row that is not 16-byte aligned");
    for (int i = 0; i < 4; i++) {
        mm_bf16 pair[2], *to;
        memcpy(pair, &r[i], sizeof pair);
        memcpy(&to, all[8 * i + g].bytes, sizeof to);
        to[2 * t] = pair[0];
        to[2 * t + 1] = pair[1];
    }
}

#endif

/* ---- fragments of tiles in shared memory -------------------------------- */

/** What a tile in shared memory holds: tf32 is rounded once, here. */
__device__ __forceinline__ mm_bf16 mm_tile_element(mm_bf16 x)
{
    return x;
}

__device__ __forceinline__ float mm_tile_element(float x)
{
    return __uint_as_float(mm_tf32_of(x));
}

/** a of rows 0..15, columns 0..K-1 of a tile whose rows are `ld` apart. */
__device__ __forceinline__ void mm_load_a(uint32_t a[4], const mm_bf16 *tile,
                                          int ld)
{
    const int lane = mm_lane();
    mm_load_matrices<false>(a, tile + lane % 16 * ld + lane / 16 * 8);
}

__device__ __forceinline__ void mm_load_a(uint32_t a[4], const float *tile,
                                          int ld)
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = __float_as_uint(tile[(g + i % 2 * 8) * ld + t + i / 2 * 4]);
}

/** a of a tile's transpose: rows 0..15 are columns of the tile, k are its rows
 * 0..K-1; for tf32 in the order of mm_a_of_c. */
__device__ __forceinline__ void mm_load_a_columns(uint32_t a[4],
                                                  const mm_bf16 *tile, int ld)
{
    const int lane = mm_lane();
    mm_load_matrices<true>(a, tile + (lane / 16 * 8 + lane % 8) * ld +
                                  lane / 8 % 2 * 8);
}

__device__ __forceinline__ void mm_load_a_columns(uint32_t a[4],
                                                  const float *tile, int ld)
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = __float_as_uint(tile[(2 * t + i / 2) * ld + g + i % 2 * 8]);
}

/** b of a tile's transpose: b[n][..] is rows 8 n .. 8 n + 7, columns 0..K-1. */
__device__ __forceinline__ void mm_load_b_rows(uint32_t b[2][2],
                                               const mm_bf16 *tile, int ld)
{
    const int lane = mm_lane();
    uint32_t r[4];
    mm_load_matrices<false>(r, tile + (lane / 16 * 8 + lane % 8) * ld +
                                   lane / 8 % 2 * 8);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

__device__ __forceinline__ void mm_load_b_rows(uint32_t b[2][2],
                                               const float *tile, int ld)
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        b[n][0] = __float_as_uint(tile[(8 * n + g) * ld + t]);
        b[n][1] = __float_as_uint(tile[(8 * n + g) * ld + t + 4]);
    }
}

/** b of a tile as it lies: rows 0..K-1 are k, b[n][..] is columns 8 n .. 8 n +
 * 7. For tf32 with k in the order of mm_a_of_c. */
__device__ __forceinline__ void mm_load_b(uint32_t b[2][2], const mm_bf16 *tile,
                                          int ld)
{
    const int lane = mm_lane();
    uint32_t r[4];
    mm_load_matrices<true>(r, tile + lane % 16 * ld + lane / 16 * 8);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

__device__ __forceinline__ void mm_load_b(uint32_t b[2][2], const float *tile,
                                          int ld)
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        b[n][0] = __float_as_uint(tile[2 * t * ld + 8 * n + g]);
        b[n][1] = __float_as_uint(tile[(2 * t + 1) * ld + 8 * n + g]);
    }
}

/** Sums of one product as `a` of the next: step `s` of the 16 columns of c[0]
 * and c[1]. For bf16 there is one step, K = 16; for tf32 there are two, and k
 * is taken in the order 0 2 4 6 1 3 5 7, which leaves every element where it
 * is. */
__device__ __forceinline__ void mm_a_of_c(uint32_t a[4], const float c[2][4],
                                          int, mm_bf16)
{
    a[0] = mm_pack(c[0][0], c[0][1]);
    a[1] = mm_pack(c[0][2], c[0][3]);
    a[2] = mm_pack(c[1][0], c[1][1]);
    a[3] = mm_pack(c[1][2], c[1][3]);
}

__device__ __forceinline__ void mm_a_of_c(uint32_t a[4], const float c[2][4],
                                          int s, float)
{
    a[0] = mm_tf32_of(c[s][0]);
    a[1] = mm_tf32_of(c[s][2]);
    a[2] = mm_tf32_of(c[s][1]);
    a[3] = mm_tf32_of(c[s][3]);
}

/** Sums of a product, [16, 16], to rows of a tile, without stmatrix. */
template <typename T>
__device__ __forceinline__ void mm_store_pairs(T *tile, int ld,
                                               const float c[2][4])
{
    const int g = mm_lane() / 4, t = mm_lane() % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        mm_vec<T, 2> pair;
        mm_set(pair.v[0], c[i / 2][i % 2 * 2]);
        mm_set(pair.v[1], c[i / 2][i % 2 * 2 + 1]);
        mm_store<2>(tile + (g + i % 2 * 8) * ld + i / 2 * 8 + 2 * t, pair);
    }
}

/** The same; of bf16 rows are 16-byte aligned. */
__device__ __forceinline__ void mm_store_c(mm_bf16 *tile, int ld,
                                           const float c[2][4])
{
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ < 900
    mm_store_pairs(tile, ld, c);
#else
    const int lane = mm_lane();
    uint32_t r[4];
    mm_a_of_c(r, c, 0, mm_bf16());
    mm_store_matrices(tile + lane % 16 * ld + lane / 16 * 8, r);
#endif
}

__device__ __forceinline__ void mm_store_c(float *tile, int ld,
                                           const float c[2][4])
{
    mm_store_pairs(tile, ld, c);
}

#endif
