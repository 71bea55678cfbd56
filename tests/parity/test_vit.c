/*
 * The image tower against PyTorch's float64 numbers: every activation, logit
 * and gradient of a small tower, finite differences of its loss, and
 * full-size towers on weights from a closed formula. MAGMAX_TEST_DEVICE names
 * another device than the CPU; the full sizes are for that alone.
 *
 * ctest: timeout=300 processors=2 cuda
 */
#include "io/weights.h"
#include "kernels/backend.h"
#include "src/model/params.h"
#include "src/model/vit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN "tests/golden/"

/* Agreed bounds, as parts of a tensor's largest magnitude. */
static const double tiny_bound = 1e-5, clip_bound = 1e-4,
                    clip_grad_bound = 1e-3;

static void must(mm_status st)
{
    if (st != MM_OK)
        fail_msg("%s", mm_fail_message());
}

/** One whole tensor of a file; free() it. */
static float *read_tensor(mm_weights *file, const char *name, int64_t *n_elems)
{
    const mm_tensor_table *table = mm_weights_table(file);
    int at = mm_tensor_table_find(table, name);
    if (at < 0)
        fail_msg("no tensor %s in %s", name, mm_weights_path(file));
    const mm_tensor *tensor = &table->tensors[at];
    float *values = malloc((size_t)tensor->n_elems * sizeof *values);
    must(mm_weights_read(file, tensor->off_elems,
                         tensor->off_elems + tensor->n_elems, values));
    if (n_elems)
        *n_elems = tensor->n_elems;
    return values;
}

static void assert_close(const char *name, const float *ours,
                         const float *theirs, int64_t n, double bound)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)theirs[i]));
        double error = fabs((double)ours[i] - (double)theirs[i]);
        if (!(error <= worst))
            worst = error;
    }
    if (!(worst <= bound * largest))
        fail_msg("%s: off by %.3g of its largest magnitude, allowed %.3g", name,
                 worst / largest, bound);
}

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
    uint8_t *images;
    int32_t *labels;
    double *loss_sum;
} rig;

static const char *device_name(void)
{
    const char *name = getenv("MAGMAX_TEST_DEVICE");
    return name ? name : "cpu";
}

static void *device_bytes(rig *r, int64_t n_bytes)
{
    void *memory;
    must(mm_device_alloc(r->device, n_bytes, &memory));
    return memory;
}

static float *device_floats(rig *r, int64_t n)
{
    return device_bytes(r, n * (int64_t)sizeof(float));
}

static void upload(rig *r, void *device, const void *host, int64_t n_bytes)
{
    must(mm_copy_to_device(r->stream, device, host, n_bytes));
    must(mm_stream_sync(r->stream));
}

static void upload_floats(rig *r, float *device, const float *host, int64_t n)
{
    upload(r, device, host, n * (int64_t)sizeof *host);
}

static void download(rig *r, void *host, const void *device, int64_t n_bytes)
{
    must(mm_copy_to_host(r->stream, host, device, n_bytes));
    must(mm_stream_sync(r->stream));
}

/** A host copy; free() it. */
static float *fetch(rig *r, const float *device, int64_t n)
{
    float *host = malloc((size_t)n * sizeof *host);
    download(r, host, device, n * (int64_t)sizeof *host);
    return host;
}

static void rig_open(rig *r, const char *model, int64_t n_images,
                     int64_t n_classes, patchify_op *patchify)
{
    memset(r, 0, sizeof *r);
    must(mm_device_open(device_name(), 2, &r->device));
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
    int64_t size = r->config.image_size;
    r->images = device_bytes(r, n_images * size * size * 3);
    r->labels = device_bytes(r, n_images * (int64_t)sizeof *r->labels);
    r->loss_sum = device_bytes(r, (int64_t)sizeof *r->loss_sum);
}

static void rig_close(rig *r)
{
    void *buffers[] = {r->theta,   r->grad,     r->head,      r->logits,
                       r->dlogits, r->inv_norm, r->dfeatures, r->images,
                       r->labels,  r->loss_sum};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        mm_device_release(r->device, &buffers[i]);
    mm_vit_destroy(&r->vit);
    mm_tensor_table_clear(&r->table);
    mm_model_config_clear(&r->config);
    mm_stream_destroy(&r->stream);
    mm_device_close(&r->device);
}

/** Mean cross-entropy of a forward pass. `images` is NULL where patchify has
 * been replaced. */
static double rig_loss(rig *r, const uint8_t *images, const int32_t *labels)
{
    double sum;
    int64_t size = r->config.image_size;
    if (images)
        upload(r, r->images, images, r->n_images * size * size * 3);
    upload(r, r->labels, labels, r->n_images * (int64_t)sizeof *labels);
    must(
        mm_vit_forward(r->vit, r->theta, r->images, r->n_images, &r->features));
    must(r->ops->normalized_logits(r->stream, r->logits, r->inv_norm,
                                   r->features, r->head, r->n_images,
                                   r->config.embed_dim, r->n_classes));
    must(r->ops->softmax_cross_entropy(
        r->stream, r->loss_sum, r->dlogits, r->logits, r->labels, 0,
        1.0f / (float)r->n_images, r->n_images, r->n_classes));
    download(r, &sum, r->loss_sum, (int64_t)sizeof sum);
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
    float *theta; /* host */
    uint8_t *images;
    int32_t labels[8];
} tiny;

/** The first bytes of a tensor that is no weight. */
static void read_raw(const char *path, const char *name, void *out,
                     size_t n_bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint64_t header_bytes;
    assert_int_equal(fread(&header_bytes, sizeof header_bytes, 1, file), 1);
    char *text = malloc(header_bytes);
    assert_int_equal(fread(text, 1, header_bytes, file), header_bytes);
    json_t *header = json_loadb(text, header_bytes, 0, NULL);
    const json_t *offsets =
        json_object_get(json_object_get(header, name), "data_offsets");
    json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    fseek(file, (long)(8 + header_bytes) + (long)begin, SEEK_SET);
    assert_int_equal(fread(out, 1, n_bytes, file), n_bytes);
    json_decref(header);
    free(text);
    fclose(file);
}

static void tiny_open(tiny *t)
{
    enum { SIZE = 32, B = 8, PLANE = SIZE * SIZE };
    static const char data[] = GOLDEN "tiny/data.safetensors";
    rig *r = &t->rig;
    rig_open(r, GOLDEN "tiny/model.json", B, 6, NULL);
    float head[6 * 32];
    t->theta = malloc((size_t)r->table.n_elems * sizeof *t->theta);
    must(mm_weights_load(GOLDEN "tiny/weights.safetensors", &r->table,
                         t->theta));
    upload_floats(r, r->theta, t->theta, r->table.n_elems);
    read_raw(data, "head_weight", head, sizeof head);
    upload_floats(r, r->head, head, 6 * 32);
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
    free(t->theta);
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

    int64_t n_tokens = r->config.n_tokens, width = r->config.width;
    float *ours = malloc((size_t)(8 * n_tokens * width) * sizeof *ours);
    for (int64_t layer = -1; layer < r->config.n_layers; layer++) {
        char name[32] = "after_ln_pre";
        if (layer >= 0)
            snprintf(name, sizeof name, "after_block_%lld", (long long)layer);
        float *theirs = read_tensor(step, name, NULL);
        must(mm_vit_copy_activation(r->vit, layer, ours));
        if (layer < r->config.n_layers - 1) {
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
    float *our_features = fetch(r, r->features, 8 * 32);
    float *our_logits = fetch(r, r->logits, 8 * 6);
    assert_close("features", our_features, features, 8 * 32, tiny_bound);
    assert_close("logits", our_logits, logits, 8 * 6, tiny_bound);
    float our_loss = (float)loss;
    assert_close("loss", &our_loss, their_loss, 1, tiny_bound);
    free(our_features);
    free(our_logits);
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
    float *grad = fetch(r, r->grad, r->table.n_elems);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        char name[160];
        snprintf(name, sizeof name, "grad.%s", tensor->name);
        int64_t n;
        float *theirs = read_tensor(step, name, &n);
        assert_int_equal(n, tensor->n_elems);
        assert_close(name, grad + tensor->off_elems, theirs, n, tiny_bound);
        free(theirs);
    }
    free(grad);
    mm_weights_close(&step);
    tiny_close(&t);
}

static void accumulating_twice_doubles_every_gradient(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t);
    rig *r = &t.rig;
    rig_loss(r, t.images, t.labels);
    rig_backward(r, false);
    float *once = fetch(r, r->grad, r->table.n_elems);
    rig_loss(r, t.images, t.labels);
    rig_backward(r, true);
    float *twice = fetch(r, r->grad, r->table.n_elems);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        float *half = twice + tensor->off_elems;
        for (int64_t j = 0; j < tensor->n_elems; j++)
            half[j] *= 0.5f;
        assert_close(tensor->name, half, once + tensor->off_elems,
                     tensor->n_elems, 1e-6);
    }
    free(once);
    free(twice);
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
    float *grad = fetch(r, r->grad, r->table.n_elems);
    float *moved = fetch(r, r->theta, r->table.n_elems);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        int64_t at = tensor->off_elems;
        /* The gradient's own direction: the slope is its norm, far from 0. */
        double norm = 0, slope = 0, loss[2];
        for (int64_t j = 0; j < tensor->n_elems; j++)
            norm += (double)grad[at + j] * grad[at + j];
        norm = sqrt(norm);
        double step = 2e-3 / fmax(norm, 1e-3);
        for (int side = 0; side < 2; side++) {
            slope = 0;
            for (int64_t j = 0; j < tensor->n_elems; j++) {
                double unit = grad[at + j] / norm;
                slope += unit * grad[at + j];
                moved[at + j] =
                    t.theta[at + j] + (float)((side ? step : -step) * unit);
            }
            upload_floats(r, r->theta + at, moved + at, tensor->n_elems);
            loss[side] = rig_loss(r, t.images, t.labels);
        }
        upload_floats(r, r->theta + at, t.theta + at, tensor->n_elems);
        double measured = (loss[1] - loss[0]) / (2 * step);
        if (!(fabs(measured - slope) <= 1e-2 * slope + 1e-4))
            fail_msg("%s: slope %.6g, finite differences give %.6g",
                     tensor->name, slope, measured);
    }
    free(grad);
    free(moved);
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
    float *theta = malloc((size_t)r.table.n_elems * sizeof *theta);
    for (int i = 0; i < r.table.n_tensors; i++) {
        const mm_tensor *tensor = &r.table.tensors[i];
        float *values = theta + tensor->off_elems;
        fill_by_formula(tensor, values);
        char name[192];
        snprintf(name, sizeof name, "weight_first4.%s", tensor->name);
        float *first = read_tensor(golden, name, NULL);
        assert_memory_equal(first, values, 4 * sizeof *values);
        free(first);
    }
    upload_floats(&r, r.theta, theta, r.table.n_elems);
    free(theta);
    float *head = malloc((size_t)(5 * r.config.embed_dim) * sizeof *head);
    for (int64_t i = 0; i < 5 * r.config.embed_dim; i++)
        head[i] = 20 * (float)(0.2 * formula("head", (uint64_t)i));
    upload_floats(&r, r.head, head, 5 * r.config.embed_dim);
    free(head);
    int64_t n_pixels = 2 * 3 * r.config.image_size * r.config.image_size;
    float *images = malloc((size_t)n_pixels * sizeof *images);
    for (int64_t i = 0; i < n_pixels; i++)
        images[i] = (float)(3 * formula("images", (uint64_t)i));

    normalised_images = images;
    const int32_t labels[] = {1, 3};
    float loss = (float)rig_loss(&r, NULL, labels);
    rig_backward(&r, false);

    float *features = read_tensor(golden, "features", NULL);
    float *logits = read_tensor(golden, "logits", NULL);
    float *their_loss = read_tensor(golden, "loss", NULL);
    float *our_features = fetch(&r, r.features, 2 * r.config.embed_dim);
    float *our_logits = fetch(&r, r.logits, 2 * 5);
    float *grad = fetch(&r, r.grad, r.table.n_elems);
    assert_close("features", our_features, features, 2 * r.config.embed_dim,
                 clip_bound);
    assert_close("logits", our_logits, logits, 2 * 5, clip_bound);
    assert_close("loss", &loss, their_loss, 1, clip_bound);
    for (int i = 0; i < r.table.n_tensors; i++)
        assert_gradient(golden, &r.table.tensors[i],
                        grad + r.table.tensors[i].off_elems);
    free(our_features);
    free(our_logits);
    free(grad);
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
    const struct CMUnitTest small[] = {
        cmocka_unit_test(activations_logits_and_loss_equal_pytorchs),
        cmocka_unit_test(every_gradient_equals_pytorchs),
        cmocka_unit_test(accumulating_twice_doubles_every_gradient),
        cmocka_unit_test(gradients_agree_with_finite_differences),
    };
    const struct CMUnitTest full[] = {
        cmocka_unit_test(vit_b_32_quickgelu_equals_open_clip),
#ifndef __SANITIZE_ADDRESS__ /* minutes there, over the same code */
        cmocka_unit_test(vit_b_16_equals_open_clip),
#endif
    };
    int n_failed = cmocka_run_group_tests(small, NULL, NULL);
    if (!strcmp(device_name(), "cpu"))
        n_failed += cmocka_run_group_tests(full, NULL, NULL);
    return n_failed;
}
