#ifndef MAGMAX_SRC_MODEL_POSITIONS_H
#define MAGMAX_SRC_MODEL_POSITIONS_H

#include "src/base/log.h"

#include <stdint.h>

/**
 * Positional embeddings for a grid of patches of another size, as open_clip
 * makes them when it loads weights: the class token's row is kept, the others
 * are resized like an image, bicubic with antialias (PyTorch's interpolate with
 * align_corners false: Keys' kernel with a = -1/2, widened where the grid
 * shrinks, cut off and renormalised at the edges).
 *
 * Shapes   in: [1 + from_grid^2, width]; out: [1 + to_grid^2, width].
 * Memory   Host; in and out do not overlap.
 * Ranks    Local.
 * Timing   Blocking.
 * Repeat   Same bits everywhere. A grid of the same size is copied.
 * Errors   MM_E_MEMORY. Sizes below 1 are bugs.
 */
mm_status mm_positions_resize(const float *in, int64_t from_grid,
                              int64_t to_grid, int64_t width, float *out);

/** The side of the square grid of patches that n_tokens tokens are, with the
 * class token; 0 where they are none. */
int64_t mm_positions_grid(int64_t n_tokens);

/** The tensor's name. */
#define MM_POSITIONS "visual.positional_embedding"

/** Log that positions for `from` tokens are resized to `to`. */
void mm_positions_log(mm_log *log, int64_t from, int64_t to);

#endif
