#ifndef MAGMAX_SRC_BASE_ARENA_H
#define MAGMAX_SRC_BASE_ARENA_H

#include <stdint.h>

/**
 * Carves one block of memory into pieces. A plan runs twice: first over an
 * arena without memory, which only counts, then over one that has `used` bytes;
 * so a size is written down once, and running out is an error before the first
 * step.
 */
typedef struct mm_arena {
    char *base; /* NULL while counting */
    int64_t used;
} mm_arena;

/** Take n_bytes, 64-byte aligned; NULL while counting. */
static inline void *mm_arena_take(mm_arena *arena, int64_t n_bytes)
{
    int64_t at = arena->used;
    arena->used = at + (n_bytes + 63) / 64 * 64;
    return arena->base ? arena->base + at : 0;
}

static inline float *mm_arena_floats(mm_arena *arena, int64_t n_elems)
{
    return (float *)mm_arena_take(arena, n_elems * (int64_t)sizeof(float));
}

#endif
