/* Transposing 32 rows of bytes to a block and back, so that the column pass of
 * a resize works on adjacent bytes. */

#include "src/image/resample_kernels.h"

#include <string.h>

/* Sixteen bytes, and the interleaved halves of two of them. */
enum { TILE = 16 };
typedef uint8_t tile_row __attribute__((vector_size(TILE)));
#define MM_LOWER(a, b)                                                         \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, \
                            22, 7, 23)
#define MM_UPPER(a, b)                                                      \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, \
                            29, 14, 30, 15, 31)

/** Transpose TILE x TILE bytes: four perfect shuffles of the rows. */
static inline __attribute__((always_inline)) void transpose(tile_row a[TILE])
{
    tile_row b[TILE];
    for (int pass = 0; pass < 2; pass++) {
        for (int r = 0; r < TILE / 2; r++) {
            b[2 * r] = MM_LOWER(a[r], a[r + TILE / 2]);
            b[2 * r + 1] = MM_UPPER(a[r], a[r + TILE / 2]);
        }
        for (int r = 0; r < TILE / 2; r++) {
            a[2 * r] = MM_LOWER(b[r], b[r + TILE / 2]);
            a[2 * r + 1] = MM_UPPER(b[r], b[r + TILE / 2]);
        }
    }
}

void mm_rows_to_block(const uint8_t *const rows[MM_LANES], int64_t n_bytes,
                      uint8_t *block)
{
    int64_t i = 0;
    for (; i + TILE <= n_bytes; i += TILE)
        for (int from = 0; from < MM_LANES; from += TILE) {
            tile_row tile[TILE];
            for (int r = 0; r < TILE; r++) {
                const uint8_t *at = rows[from + r] + i;
                memcpy(&tile[r], at, TILE);
                /* The processor prefetches fewer streams than these rows. */
                if (i % 64 == 0)
                    __builtin_prefetch(at + 128);
            }
            transpose(tile);
            for (int r = 0; r < TILE; r++)
                memcpy(block + (i + r) * MM_LANES + from, &tile[r], TILE);
        }
    for (; i < n_bytes; i++)
        for (int r = 0; r < MM_LANES; r++)
            block[i * MM_LANES + r] = rows[r][i];
}

void mm_block_to_rows(const uint8_t *block, int64_t n_bytes,
                      uint8_t *const rows[MM_LANES])
{
    for (int64_t i = 0; i < n_bytes; i += TILE)
        for (int to = 0; to < MM_LANES; to += TILE) {
            tile_row tile[TILE];
            for (int r = 0; r < TILE; r++)
                memcpy(&tile[r], block + (i + r) * MM_LANES + to, TILE);
            transpose(tile);
            for (int r = 0; r < TILE; r++)
                memcpy(rows[to + r] + i, &tile[r], TILE);
        }
}
