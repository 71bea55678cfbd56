#ifndef MAGMAX_SRC_CONVERT_STREAM_H
#define MAGMAX_SRC_CONVERT_STREAM_H

#include "src/convert/convert_plan.h"

/**
 * The output's elements, made from the inputs' as they are asked for. Ranges of
 * rows are read straight to where they are wanted; a tensor that is transposed
 * or resized is made as a whole when its first element is asked for, and kept
 * until the next such: two buffers of the largest of these tensors (7 MB in all
 * for ViT-L-14-336) are all the memory.
 */
typedef struct mm_convert_stream mm_convert_stream;

/**
 * Memory   Gives *stream, freed by mm_convert_stream_destroy. Keeps inputs
 *          and plan.
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_convert_stream_create(const mm_convert_inputs *inputs,
                                   const mm_convert_plan *plan,
                                   mm_convert_stream **stream);
void mm_convert_stream_destroy(mm_convert_stream **stream);

/**
 * Elements [lo, hi) of the output, as fp32. Every element of the inputs is read
 * once where the ranges ascend.
 *
 * Memory   out: host, [hi - lo].
 * Ranks    Local.
 * Errors   As mm_weights_read; MM_E_MEMORY.
 */
mm_status mm_convert_stream_read(mm_convert_stream *stream, int64_t lo,
                                 int64_t hi, float *out);

#endif
