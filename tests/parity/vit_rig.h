#ifndef MAGMAX_TESTS_PARITY_VIT_RIG_H
#define MAGMAX_TESTS_PARITY_VIT_RIG_H

#include "kernels/backend.h"
#include "src/model/low_precision.h"
#include "src/model/params.h"
#include "src/model/vit.h"
#include "tests/parity/golden.h"

typedef mm_status patchify_op(mm_stream *, mm_act *, const uint8_t *, int64_t,
                              int64_t, int64_t, const float *, const float *);

/** An image tower with a head, as a training step uses them, on the device that
 * MAGMAX_TEST_DEVICE names, the CPU without it. */
typedef struct rig {
    mm_device *device;
    mm_stream *stream;
    mm_ops op_table;
    const mm_ops *ops;
    mm_model_config config;
    mm_tensor_table table;
    mm_vit *vit;
    float *theta, *grad, *head;
    mm_act *theta_low; /* of theta, or NULL */
    int64_t n_images, n_classes;
    float *features; /* of the last pass */
    float *logits, *inv_norm, *dlogits, *dfeatures;
    uint8_t *images;
    int32_t *labels;
    double *loss_sum;
} rig;

static inline void *device_bytes(rig *r, int64_t n_bytes)
{
    void *memory;
    must(mm_device_alloc(r->device, n_bytes, &memory));
    return memory;
}

static inline float *device_floats(rig *r, int64_t n)
{
    return device_bytes(r, n * (int64_t)sizeof(float));
}

static inline void upload(rig *r, void *device, const void *host,
                          int64_t n_bytes)
{
    must(mm_copy_to_device(r->stream, device, host, n_bytes));
    must(mm_stream_sync(r->stream));
}

static inline void upload_floats(rig *r, float *device, const float *host,
                                 int64_t n)
{
    upload(r, device, host, n * (int64_t)sizeof *host);
}

static inline void download(rig *r, void *host, const void *device,
                            int64_t n_bytes)
{
    must(mm_copy_to_host(r->stream, host, device, n_bytes));
    must(mm_stream_sync(r->stream));
}

/** A host copy; free() it. */
static inline float *fetch(rig *r, const float *device, int64_t n)
{
    float *host = malloc((size_t)n * sizeof *host);
    download(r, host, device, n * (int64_t)sizeof *host);
    return host;
}

/**
 * What an activation or, when `backward`, a gradient may be off by because of
 * the device's precision, as a part of the largest of its tensor.
 *
 * On its way through a tower a number passes 2 roundings before the blocks
 * (pixels, patches), 2 more with the tokens and their norm, 14 a block (9
 * results: two norms, qkv, probabilities, attention, two sums of the residual
 * stream, the MLP before and after its activation; 5 tensors of weights) and 2
 * behind them; as many again backwards. Each changes it by at most one unit, up
 * or down: a random walk. tf32 rounds the factors of products only.
 */
static inline double rig_bound(const rig *r, double fp32_bound, bool backward)
{
    const char *precision = mm_device_precision(r->device);
    double unit = strcmp(precision, "bf16") == 0   ? 0x1p-8
                  : strcmp(precision, "tf32") == 0 ? 0x1p-10
                                                   : 0;
    double n = 6 + 14 * (double)r->config.image.n_layers;
    return fp32_bound + unit * sqrt(backward ? 2 * n : n);
}

static inline void rig_open(rig *r, const char *model, int64_t n_images,
                            int64_t n_classes, patchify_op *patchify)
{
    memset(r, 0, sizeof *r);
    const char *device = getenv("MAGMAX_TEST_DEVICE");
    must(mm_device_open(device ? device : "cpu", 2, &r->device));
    r->op_table = *mm_device_ops(r->device);
    if (patchify)
        r->op_table.patchify = patchify;
    r->device->ops = r->ops = &r->op_table;
    must(mm_stream_create(r->device, &r->stream));
    must(mm_model_config_find(model, &r->config));
    must(mm_params_table(&r->config, &r->table));
    must(mm_vit_create(r->device, r->stream, &r->config, MM_VIT_TRAINING,
                       n_images, &r->vit));
    r->n_images = n_images;
    r->n_classes = n_classes;
    r->theta = device_floats(r, r->table.n_elems);
    int64_t act_bytes = mm_device_act_bytes(r->device);
    if (act_bytes < (int64_t)sizeof(float))
        r->theta_low = device_bytes(r, r->table.n_elems * act_bytes);
    r->grad = device_floats(r, r->table.n_elems);
    r->head = device_floats(r, n_classes * r->config.embed_dim);
    r->logits = device_floats(r, n_images * n_classes);
    r->dlogits = device_floats(r, n_images * n_classes);
    r->inv_norm = device_floats(r, n_images);
    r->dfeatures = device_floats(r, n_images * r->config.embed_dim);
    int64_t size = r->config.image_size;
    r->images = device_bytes(r, n_images * size * size * 3);
    r->labels = device_bytes(r, n_images * (int64_t)sizeof *r->labels);
    r->loss_sum = device_bytes(r, (int64_t)sizeof *r->loss_sum);
}

static inline void rig_close(rig *r)
{
    void *buffers[] = {r->theta,   r->grad,     r->head,      r->logits,
                       r->dlogits, r->inv_norm, r->dfeatures, r->images,
                       r->labels,  r->loss_sum, r->theta_low};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        mm_device_free(r->device, &buffers[i]);
    mm_vit_destroy(&r->vit);
    mm_tensor_table_clear(&r->table);
    mm_model_config_clear(&r->config);
    mm_stream_destroy(&r->stream);
    mm_device_close(&r->device);
}

/** Mean cross-entropy of a forward pass. `images` is NULL where patchify has
 * been replaced. */
static inline double rig_loss(rig *r, const uint8_t *images,
                              const int32_t *labels)
{
    double sum;
    int64_t size = r->config.image_size;
    if (images)
        upload(r, r->images, images, r->n_images * size * size * 3);
    upload(r, r->labels, labels, r->n_images * (int64_t)sizeof *labels);
    must(mm_low_precision_fill(r->ops, r->stream, r->theta_low, r->theta,
                               r->table.n_elems));
    must(mm_vit_forward(r->vit, r->theta,
                        mm_low_precision_or_theta(r->theta_low, r->theta),
                        r->images, r->n_images, &r->features));
    must(r->ops->normalized_logits(r->stream, r->logits, r->inv_norm,
                                   r->features, r->head, r->n_images,
                                   r->config.embed_dim, r->n_classes));
    must(r->ops->softmax_cross_entropy(
        r->stream, r->loss_sum, r->dlogits, r->logits, r->labels, 0,
        1.0f / (float)r->n_images, r->n_images, r->n_classes));
    download(r, &sum, r->loss_sum, (int64_t)sizeof sum);
    return sum / (double)r->n_images;
}

static inline void rig_backward(rig *r, bool accumulate)
{
    must(r->ops->normalized_logits_grad(
        r->stream, r->dfeatures, r->dlogits, r->features, r->inv_norm, r->head,
        r->n_images, r->config.embed_dim, r->n_classes));
    must(mm_vit_backward(r->vit, r->theta,
                         mm_low_precision_or_theta(r->theta_low, r->theta),
                         r->grad, r->dfeatures, accumulate, NULL));
}

#endif
