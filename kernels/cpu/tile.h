#ifndef MAGMAX_KERNELS_CPU_TILE_H
#define MAGMAX_KERNELS_CPU_TILE_H

#include "kernels/cpu/cpu.h"

#include <string.h>

/*
 * The register-blocked product inside attention (Goto and van de Geijn 2008;
 * the tile's shape as in BLIS, Van Zee and van de Geijn 2015): a tile of sums
 * stays in registers, each step broadcasts a column of a and multiplies it with
 * a row of b. A library's call costs more than one head of a small model takes.
 */

#if defined(__AVX__)
enum { MM_VEC = 8 };
#else
enum { MM_VEC = 4 };
#endif
enum { MM_TILE_ROWS = 6, MM_TILE_COLS = 2 * MM_VEC };

typedef float mm_vec __attribute__((vector_size(4 * MM_VEC), may_alias));
typedef float mm_vec_unaligned
    __attribute__((vector_size(4 * MM_VEC), aligned(4), may_alias));

/**
 * c (+)= a b for one tile, in ascending k, one addition to c at the end.
 *
 * Shapes   c: [n_rows, MM_TILE_COLS], rows `ldc` apart; a(i,k) =
 *          a[i*a_row + k*a_k]; b [n_k, MM_TILE_COLS], 4*MM_VEC-byte aligned.
 *          n_rows is 1..MM_TILE_ROWS. add false: c is not read.
 */
#define MM_TILE_ARGS \
    int64_t n_k, const float *a, const float *b, float *c, int64_t ldc, bool add

/** a row-major: a_k 1. */
void MM_CPU(tile_rows)(int n_rows, int64_t a_row, MM_TILE_ARGS);
/** a transposed: a_row 1. */
void MM_CPU(tile_cols)(int n_rows, int64_t a_k, MM_TILE_ARGS);

/**
 * Copy into panels that a tile reads: dst[k*width + i] = src(i,k) for
 * i < n_valid, zero for the others.
 *
 * Shapes   pack_rows: src(i,k) = src[i*ld + k]; pack_cols: src[k*ld + i].
 *          width is a multiple of 2.
 */
void MM_CPU(pack_rows)(float *dst, const float *src, int64_t ld, int n_valid,
                       int width, int64_t n_k);
void MM_CPU(pack_cols)(float *dst, const float *src, int64_t ld, int n_valid,
                       int width, int64_t n_k);

#endif
