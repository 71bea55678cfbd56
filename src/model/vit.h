#ifndef MAGMAX_SRC_MODEL_VIT_H
#define MAGMAX_SRC_MODEL_VIT_H

#include "kernels/ops.h"
#include "src/model/config.h"
#include "src/model/params.h"

/**
 * CLIP's image tower (Radford et al. 2021, section 2.4; open_clip's
 * VisionTransformer) on one device: a sequence of op calls over activations
 * that were laid out before the first one. The weights are the caller's flat
 * buffer, in mm_params_table's layout.
 *
 * The features depend on the class token alone, so everything after the last
 * block's attention is computed for that token only.
 */
typedef struct mm_vit mm_vit;

/** What an mm_vit is made for. */
typedef enum mm_vit_use {
    MM_VIT_INFERENCE,  /* forward; keeps no activation      */
    MM_VIT_TRAINING,   /* forward and backward              */
    MM_VIT_RECOMPUTING /* the same bits with less memory: of each block only the
                          input is kept, the rest is computed again */
} mm_vit_use;

/**
 * Memory   Gives *vit, freed by mm_vit_destroy; keeps device, stream, config.
 *          Takes all device memory that a pass over up to `max_images` needs,
 *          and reserves the stream's scratch.
 * Ranks    Local.
 * Errors   MM_E_MEMORY naming the size.
 */
mm_status mm_vit_create(mm_device *device, mm_stream *stream,
                        const mm_model_config *config, mm_vit_use use,
                        int64_t max_images, mm_vit **vit);
void mm_vit_destroy(mm_vit **vit);

/** Device bytes that mm_vit_create took. */
int64_t mm_vit_n_bytes(const mm_vit *vit);

/** Device bytes that mm_vit_create would take. Errors: MM_E_MEMORY. */
mm_status mm_vit_count_bytes(mm_device *device, const mm_model_config *config,
                             mm_vit_use use, int64_t max_images,
                             int64_t *n_bytes);

/**
 * Features of images, before normalising.
 *
 * Shapes   theta [mm_params_table's n_elems]; weights: theta or its
 *          low-precision copy (src/model/low_precision.h); images uint8
 *          [B, S, S, 3];
 *          *features [B, embed_dim], owned by the vit, valid until the next
 *          forward. 0 <= n_images <= max_images.
 * Memory   Device pointers, borrowed until the stream passes; images until the
 *          backward pass is enqueued.
 * Ranks    Local.
 * Timing   Enqueued.
 */
mm_status mm_vit_forward(mm_vit *vit, const float *theta, const mm_act *weights,
                         const uint8_t *images, int64_t n_images,
                         float **features);

/** What CLIP subtracts from, and divides by, a pixel's red, green and blue. */
extern const float mm_pixel_mean[3], mm_pixel_deviation[3];

/** Called when elements [lo, hi) of the gradient are final. */
typedef struct mm_grad_listener {
    mm_status (*ready)(void *context, float *grad, int64_t lo, int64_t hi);
    void *context;
} mm_grad_listener;

/**
 * Gradient of the last forward pass: grad = (grad if `accumulate`) + dL/dtheta.
 * `listener`, where not NULL, is called for each range once its ops are
 * enqueued, in the same order on every rank, also when this rank had no images.
 *
 * Shapes   grad [n_elems]; dfeatures [B, embed_dim].
 * Ranks    Local (the listener may be collective).
 * Timing   Enqueued.
 */
mm_status mm_vit_backward(mm_vit *vit, const float *theta,
                          const mm_act *weights, float *grad,
                          const float *dfeatures, bool accumulate,
                          const mm_grad_listener *listener);

/** Activations for tests: after ln_pre (layer -1) or after block `layer`, host
 * copy of [B, T, C]; for the last block [B, C], its class tokens. Allocates. */
mm_status mm_vit_copy_activation(mm_vit *vit, int64_t layer, float *host);

/** Multiply-adds times two of the products and attention that one image's
 * forward pass is made of, as usually counted (every token in every block). */
double mm_vit_forward_flop(const mm_model_config *config);

#endif
