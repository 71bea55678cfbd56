/*
 * The image tower against PyTorch's float64 numbers: every activation, logit
 * and gradient of a small tower, finite differences of its loss, and
 * full-size towers on weights from a closed formula.
 *
 * ctest: timeout=300 processors=2
 */
#include "kernels/backend.h"
#include "src/model/params.h"
#include "src/model/vit.h"
#include "tests/parity/golden.h"

/* Agreed bounds, as parts of a tensor's largest magnitude. */
static const double tiny_bound = 1e-5, clip_bound = 1e-4,
                    clip_grad_bound = 1e-3;

/* ---- a tower with a head, as a training step uses them ------------------ */

typedef mm_status patchify_op(mm_stream *, float *, const uint8_t *, int64_t,
                              int64_t, int64_t, const float *, const float *);

typedef struct rig {
    mm_device *device;
    mm_stream *stream;
    mm_ops op_table;
    const mm_ops *ops;
    mm_model_config config;
    mm_tensor_table table;
    mm_vit *vit;
    float *theta, *grad, *head;
    int64_t n_images, n_classes;
    float *features; /* of the last pass */
    float *logits, *inv_norm, *dlogits, *dfeatures;
} rig;

static float *device_floats(rig *r, int64_t n)
{
    void *memory;
    must(mm_device_alloc(r->device, n * (int64_t)sizeof(float), &memory));
    return memory;
}

static void rig_open(rig *r, const char *model, int64_t n_images,
                     int64_t n_classes, patchify_op *patchify)
{
    memset(r, 0, sizeof *r);
    must(mm_device_open("cpu", 2, &r->device));
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
    r->grad = device_floats(r, r->table.n_elems);
    r->head = device_floats(r, n_classes * r->config.embed_dim);
    r->logits = device_floats(r, n_images * n_classes);
    r->dlogits = device_floats(r, n_images * n_classes);
    r->inv_norm = device_floats(r, n_images);
    r->dfeatures = device_floats(r, n_images * r->config.embed_dim);
}

static void rig_close(rig *r)
{
    float **buffers[] = {&r->theta,   &r->grad,     &r->head,     &r->logits,
                         &r->dlogits, &r->inv_norm, &r->dfeatures};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        void *memory = *buffers[i];
        mm_device_release(r->device, &memory);
    }
    mm_vit_destroy(&r->vit);
    mm_tensor_table_clear(&r->table);
    mm_model_config_clear(&r->config);
    mm_stream_destroy(&r->stream);
    mm_device_close(&r->device);
}

/** Mean cross-entropy of a forward pass. */
static double rig_loss(rig *r, const uint8_t *images, const int32_t *labels)
{
    double sum;
    must(mm_vit_forward(r->vit, r->theta, images, r->n_images, &r->features));
    must(r->ops->normalized_logits(r->stream, r->logits, r->inv_norm,
                                   r->features, r->head, r->n_images,
                                   r->config.embed_dim, r->n_classes));
    must(r->ops->softmax_cross_entropy(r->stream, &sum, r->dlogits, r->logits,
                                       labels, 0, 1.0f / (float)r->n_images,
                                       r->n_images, r->n_classes));
    return sum / (double)r->n_images;
}

static void rig_backward(rig *r, bool accumulate)
{
    must(r->ops->normalized_logits_grad(
        r->stream, r->dfeatures, r->dlogits, r->features, r->inv_norm, r->head,
        r->n_images, r->config.embed_dim, r->n_classes));
    must(mm_vit_backward(r->vit, r->theta, r->grad, r->dfeatures, accumulate,
                         NULL));
}

/* ---- the small tower ---------------------------------------------------- */

typedef struct tiny {
    rig rig;
    uint8_t *images;
    int32_t labels[8];
} tiny;

static void tiny_open(tiny *t)
{
    enum { SIZE = 32, B = 8, PLANE = SIZE * SIZE };
    static const char data[] = GOLDEN "tiny/data.safetensors";
    rig_open(&t->rig, GOLDEN "tiny/model.json", B, 6, NULL);
    must(mm_weights_load(GOLDEN "tiny/weights.safetensors", &t->rig.table,
                         t->rig.theta));
    read_raw(data, "head_weight", t->rig.head, sizeof(float) * 6 * 32);
    read_raw(data, "labels", t->labels, sizeof t->labels);
    uint8_t *planes = malloc(B * 3 * PLANE);
    read_raw(data, "images", planes, B * 3 * PLANE);
    t->images = malloc(B * 3 * PLANE);
    for (int b = 0; b < B; b++)
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < PLANE; i++)
                t->images[(b * PLANE + i) * 3 + c] =
                    planes[(b * 3 + c) * PLANE + i];
    free(planes);
}

static void tiny_close(tiny *t)
{
    free(t->images);
    rig_close(&t->rig);
}

static void activations_logits_and_loss_equal_pytorchs(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t);
    rig *r = &t.rig;
    mm_weights *step;
    must(mm_weights_open(GOLDEN "tiny/step.safetensors", &step));
    double loss = rig_loss(r, t.images, t.labels);

    int64_t n_tokens = r->config.image.n_tokens, width = r->config.image.width;
    float *ours = malloc((size_t)(8 * n_tokens * width) * sizeof *ours);
    for (int64_t layer = -1; layer < r->config.image.n_layers; layer++) {
        char name[32] = "after_ln_pre";
        if (layer >= 0)
            snprintf(name, sizeof name, "after_block_%lld", (long long)layer);
        float *theirs = read_tensor(step, name, NULL);
        must(mm_vit_copy_activation(r->vit, layer, ours));
        if (layer < r->config.image.n_layers - 1) {
            assert_close(name, ours, theirs, 8 * n_tokens * width, tiny_bound);
        } else { /* class tokens only */
            for (int64_t b = 0; b < 8; b++)
                memmove(theirs + b * width, theirs + b * n_tokens * width,
                        (size_t)width * sizeof *theirs);
            assert_close(name, ours, theirs, 8 * width, tiny_bound);
        }
        free(theirs);
    }
    free(ours);

    float *features = read_tensor(step, "features", NULL);
    float *logits = read_tensor(step, "logits", NULL);
    float *their_loss = read_tensor(step, "loss", NULL);
    assert_close("features", r->features, features, 8 * 32, tiny_bound);
    assert_close("logits", r->logits, logits, 8 * 6, tiny_bound);
    float our_loss = (float)loss;
    assert_close("loss", &our_loss, their_loss, 1, tiny_bound);
    free(features);
    free(logits);
    free(their_loss);
    mm_weights_close(&step);
    tiny_close(&t);
}

static void every_gradient_equals_pytorchs(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t);
    rig *r = &t.rig;
    mm_weights *step;
    must(mm_weights_open(GOLDEN "tiny/step.safetensors", &step));
    rig_loss(r, t.images, t.labels);
    rig_backward(r, false);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        char name[160];
        snprintf(name, sizeof name, "grad.%s", tensor->name);
        int64_t n;
        float *theirs = read_tensor(step, name, &n);
        assert_int_equal(n, tensor->n_elems);
        assert_close(name, r->grad + tensor->off_elems, theirs, n, tiny_bound);
        free(theirs);
    }
    mm_weights_close(&step);
    tiny_close(&t);
}

static void accumulating_twice_doubles_every_gradient(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t);
    rig *r = &t.rig;
    int64_t n = r->table.n_elems;
    float *once = malloc((size_t)n * sizeof *once);
    rig_loss(r, t.images, t.labels);
    rig_backward(r, false);
    memcpy(once, r->grad, (size_t)n * sizeof *once);
    rig_loss(r, t.images, t.labels);
    rig_backward(r, true);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        float *half = r->grad + tensor->off_elems;
        for (int64_t j = 0; j < tensor->n_elems; j++)
            half[j] *= 0.5f;
        assert_close(tensor->name, half, once + tensor->off_elems,
                     tensor->n_elems, 1e-6);
    }
    free(once);
    tiny_close(&t);
}

/** Along a random direction in each tensor, the loss changes as its gradient
 * says. Central differences of an fp32 loss: its rounding (about 1e-7 of the
 * loss) over the step leaves about three digits. */
static void gradients_agree_with_finite_differences(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t);
    rig *r = &t.rig;
    rig_loss(r, t.images, t.labels);
    rig_backward(r, false);
    int64_t n = r->table.n_elems;
    float *kept = malloc((size_t)n * sizeof *kept);
    memcpy(kept, r->theta, (size_t)n * sizeof *kept);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        int64_t at = tensor->off_elems;
        /* The gradient's own direction: the slope is its norm, far from 0. */
        double norm = 0, slope = 0, loss[2];
        for (int64_t j = 0; j < tensor->n_elems; j++)
            norm += (double)r->grad[at + j] * r->grad[at + j];
        norm = sqrt(norm);
        double step = 2e-3 / fmax(norm, 1e-3);
        for (int side = 0; side < 2; side++) {
            slope = 0;
            for (int64_t j = 0; j < tensor->n_elems; j++) {
                double unit = r->grad[at + j] / norm;
                slope += unit * r->grad[at + j];
                r->theta[at + j] =
                    kept[at + j] + (float)((side ? step : -step) * unit);
            }
            loss[side] = rig_loss(r, t.images, t.labels);
        }
        memcpy(r->theta + at, kept + at,
               (size_t)tensor->n_elems * sizeof *kept);
        double measured = (loss[1] - loss[0]) / (2 * step);
        if (!(fabs(measured - slope) <= 1e-2 * slope + 1e-4))
            fail_msg("%s: slope %.6g, finite differences give %.6g",
                     tensor->name, slope, measured);
    }
    free(kept);
    tiny_close(&t);
}

/* ---- full-size towers --------------------------------------------------- */

static double formula(const char *name, uint64_t i)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    uint64_t z = hash + 2 * 0x9E3779B97F4A7C15u + i; /* salt 1, and one more */
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) / 16777216.0 - 0.5;
}

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static void fill_by_formula(const mm_tensor *tensor, float *values)
{
    const char *name = tensor->name;
    double a = 0.1, b = 0;
    double fan_in = (double)tensor->n_elems / (double)tensor->shape[0];
    if (strcmp(name, "visual.proj") == 0) {
        a = 2 * sqrt(3.0 / (double)tensor->shape[0]);
    } else if (has(name, "embedding")) {
        a = 0.5;
    } else if (has(name, "ln_") && has(name, ".weight")) {
        a = 0.2;
        b = 1;
    } else if (has(name, "weight")) {
        a = 2 * sqrt(3.0 / fan_in);
    }
    for (int64_t i = 0; i < tensor->n_elems; i++)
        values[i] = (float)(a * formula(name, (uint64_t)i) + b);
}

static void assert_gradient(mm_weights *golden, const mm_tensor *tensor,
                            const float *grad)
{
    char name[192];
    snprintf(name, sizeof name, "grad_norm.%s", tensor->name);
    float *norm = read_tensor(golden, name, NULL);
    double squares = 0;
    for (int64_t i = 0; i < tensor->n_elems; i++)
        squares += (double)grad[i] * grad[i];
    float ours = (float)sqrt(squares);
    assert_close(name, &ours, norm, 1, clip_grad_bound);
    /* Entries: as parts of the root mean square, the scale of the tensor. */
    double rms = sqrt(squares / (double)tensor->n_elems);
    for (int end = 0; end < 2; end++) {
        int64_t n;
        snprintf(name, sizeof name, "grad_%s8.%s", end ? "last" : "first",
                 tensor->name);
        float *theirs = read_tensor(golden, name, &n);
        const float *entries = end ? grad + tensor->n_elems - n : grad;
        double largest = rms;
        for (int64_t i = 0; i < n; i++)
            largest = fmax(largest, fabs((double)theirs[i]));
        for (int64_t i = 0; i < n; i++)
            if (!(fabs((double)entries[i] - theirs[i]) <=
                  clip_grad_bound * largest))
                fail_msg("%s[%lld]: %.8g, PyTorch has %.8g", name, (long long)i,
                         (double)entries[i], (double)theirs[i]);
        free(theirs);
    }
    free(norm);
}

/** The golden images are normalised floats already, which no byte could give:
 * this takes patchify's place and lets them in. */
static const float *normalised_images;

static mm_status patchify_floats(mm_stream *stream, float *columns,
                                 const uint8_t *images, int64_t n_images,
                                 int64_t size, int64_t patch, const float *mean,
                                 const float *std)
{
    (void)stream, (void)images, (void)mean, (void)std;
    int64_t grid = size / patch;
    for (int64_t b = 0; b < n_images; b++)
        for (int64_t g = 0; g < grid * grid; g++)
            for (int64_t c = 0; c < 3; c++)
                for (int64_t y = 0; y < patch; y++)
                    for (int64_t x = 0; x < patch; x++)
                        *columns++ = normalised_images[((b * 3 + c) * size +
                                                        g / grid * patch + y) *
                                                           size +
                                                       g % grid * patch + x];
    return MM_OK;
}

static void check_full_size(const char *model)
{
    rig r;
    rig_open(&r, model, 2, 5, patchify_floats);
    char path[128];
    snprintf(path, sizeof path, GOLDEN "clip/%s.safetensors", model);
    mm_weights *golden;
    must(mm_weights_open(path, &golden));
    for (int i = 0; i < r.table.n_tensors; i++) {
        const mm_tensor *tensor = &r.table.tensors[i];
        float *values = r.theta + tensor->off_elems;
        fill_by_formula(tensor, values);
        char name[192];
        snprintf(name, sizeof name, "weight_first4.%s", tensor->name);
        float *first = read_tensor(golden, name, NULL);
        assert_memory_equal(first, values, 4 * sizeof *values);
        free(first);
    }
    for (int64_t i = 0; i < 5 * r.config.embed_dim; i++)
        r.head[i] = 20 * (float)(0.2 * formula("head", (uint64_t)i));
    int64_t n_pixels = 2 * 3 * r.config.image_size * r.config.image_size;
    float *images = malloc((size_t)n_pixels * sizeof *images);
    for (int64_t i = 0; i < n_pixels; i++)
        images[i] = (float)(3 * formula("images", (uint64_t)i));

    normalised_images = images;
    const int32_t labels[] = {1, 3};
    const uint8_t unused = 0;
    float loss = (float)rig_loss(&r, &unused, labels);
    rig_backward(&r, false);

    float *features = read_tensor(golden, "features", NULL);
    float *logits = read_tensor(golden, "logits", NULL);
    float *their_loss = read_tensor(golden, "loss", NULL);
    assert_close("features", r.features, features, 2 * r.config.embed_dim,
                 clip_bound);
    assert_close("logits", r.logits, logits, 2 * 5, clip_bound);
    assert_close("loss", &loss, their_loss, 1, clip_bound);
    for (int i = 0; i < r.table.n_tensors; i++)
        assert_gradient(golden, &r.table.tensors[i],
                        r.grad + r.table.tensors[i].off_elems);
    free(features);
    free(logits);
    free(their_loss);
    free(images);
    mm_weights_close(&golden);
    rig_close(&r);
}

static void vit_b_32_quickgelu_equals_open_clip(void **state)
{
    (void)state;
    check_full_size("ViT-B-32-quickgelu");
}

__attribute__((unused)) static void vit_b_16_equals_open_clip(void **state)
{
    (void)state;
    check_full_size("ViT-B-16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_logits_and_loss_equal_pytorchs),
        cmocka_unit_test(every_gradient_equals_pytorchs),
        cmocka_unit_test(accumulating_twice_doubles_every_gradient),
        cmocka_unit_test(gradients_agree_with_finite_differences),
        cmocka_unit_test(vit_b_32_quickgelu_equals_open_clip),
#ifndef __SANITIZE_ADDRESS__ /* minutes there, over the same code */
        cmocka_unit_test(vit_b_16_equals_open_clip),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
