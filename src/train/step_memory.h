#ifndef MAGMAX_SRC_TRAIN_STEP_MEMORY_H
#define MAGMAX_SRC_TRAIN_STEP_MEMORY_H

#include "src/model/vit.h"
#include "src/train/step.h"

/** What follows from a step's plan alone. */
typedef struct mm_step_sizes {
    int64_t n_params;
    int64_t part_images;   /* most that go through the model at once  */
    int64_t image_bytes;   /* one image, as the loader hands it over  */
    int64_t batch_bytes;   /* this rank's images and labels           */
    int64_t outcome_bytes; /* of the outcome below, with every part's */
    mm_vit_use use;
} mm_step_sizes;

/**
 * Device memory of a training step besides its model's activations and its
 * batches: one block, carved up before the first step.
 */
typedef struct mm_step_memory {
    void *block;
    int64_t n_bytes;
    float *theta, *grad, *m, *v; /* [n_params] */
    mm_act *theta_low;       /* of theta, or NULL (src/model/low_precision.h) */
    float *head;             /* [most_classes, E] */
    float *logits, *dlogits; /* [part_images, most_classes] */
    float *inv_norm;         /* [part_images] */
    float *dfeatures;        /* [part_images, E] */
    double *outcome;         /* the gradient's squared norm, parts' loss sums */
} mm_step_memory;

/** Ranks: local. Errors: MM_E_MEMORY. */
mm_status mm_step_sizes_of(const mm_step_plan *plan, mm_step_sizes *sizes);

/**
 * Memory   Gives what *memory points to, freed by mm_step_memory_free.
 * Ranks    Local.
 * Errors   MM_E_MEMORY naming the size.
 */
mm_status mm_step_memory_alloc(const mm_step_plan *plan,
                               const mm_step_sizes *sizes,
                               mm_step_memory *memory);
void mm_step_memory_free(mm_device *device, mm_step_memory *memory);

#endif
