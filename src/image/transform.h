#ifndef MAGMAX_SRC_IMAGE_TRANSFORM_H
#define MAGMAX_SRC_IMAGE_TRANSFORM_H

#include "io/dataset/dataset.h"

/**
 * Turns images of any mode into the model's input, byte for byte as Pillow and
 * torchvision do: resized in their own mode, bicubic with antialias (see
 * resize.h), made RGB last. Holds the scratch that one thread needs.
 */
typedef struct mm_transform mm_transform;

/**
 * Memory   Gives *transform for output [size, size, 3] uint8; scratch grows
 *          with the largest image seen, so images of one size allocate once.
 * Ranks    Local; one transform per thread.
 */
mm_status mm_transform_create(int64_t size, mm_transform **transform);
void mm_transform_destroy(mm_transform **transform);

/**
 * Evaluation: the shorter side resized to `size` (bicubic), centre crop. An
 * image that already has the size is only copied.
 *
 * Memory   out: [size, size, 3].
 * Errors   MM_E_MEMORY; MM_E_VALUE for an image without pixels, or so thin that
 *          its longer side would come out beyond 2^31 / size.
 */
mm_status mm_transform_evaluation(mm_transform *transform,
                                  const mm_image *image, uint8_t *out);

/**
 * Training: torchvision's RandomResizedCrop(size, scale (0.9, 1), ratio
 * (3/4, 4/3), bicubic); the box is a function of (seed, epoch, sample) alone.
 */
mm_status mm_transform_training(mm_transform *transform, const mm_image *image,
                                uint64_t seed, int64_t epoch, int64_t sample,
                                uint8_t *out);

/** Resize the box (left, top, width, height) of an image to `size` square. */
mm_status mm_transform_crop(mm_transform *transform, const mm_image *image,
                            int64_t left, int64_t top, int64_t width,
                            int64_t height, uint8_t *out);

#endif
