#ifndef MAGMAX_TESTS_PARITY_FULL_SIZE_H
#define MAGMAX_TESTS_PARITY_FULL_SIZE_H

#include "tests/parity/vit_rig.h"

/* Agreed bounds in fp32: of features and logits, as parts of the largest
 * magnitude; of gradient norms and entries. rig_bound adds what a precision
 * that rounds more may cost. */
static const double clip_bound = 1e-4, clip_grad_bound = 1e-3;

static inline uint64_t hash_of(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    return hash;
}

/** Number i of the tensor whose name has that hash. */
static inline double formula(uint64_t hash, uint64_t i)
{
    uint64_t z = hash + 2 * 0x9E3779B97F4A7C15u + i; /* salt 1, and one more */
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) / 16777216.0 - 0.5;
}

static inline bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static inline void fill_by_formula(const mm_tensor *tensor, float *values)
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
    const uint64_t hash = hash_of(name);
    for (int64_t i = 0; i < tensor->n_elems; i++)
        values[i] = (float)(a * formula(hash, (uint64_t)i) + b);
}

static inline void assert_gradient(const rig *r, mm_weights *golden,
                                   const mm_tensor *tensor, const float *grad)
{
    const double rounding = rig_bound(r, 0, true);
    char name[192];
    snprintf(name, sizeof name, "grad_norm.%s", tensor->name);
    float *norm = read_tensor(golden, name, NULL);
    double squares = 0, peak = 0;
    for (int64_t i = 0; i < tensor->n_elems; i++) {
        squares += (double)grad[i] * grad[i];
        peak = fmax(peak, fabs((double)grad[i]));
    }
    float ours = (float)sqrt(squares);
    assert_close(name, &ours, norm, 1, clip_grad_bound + rounding);
    /* Entries: as parts of the root mean square, the scale of the tensor; what
     * rounding costs, of the largest entry. */
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
                  clip_grad_bound * largest + rounding * peak))
                fail_msg("%s[%lld]: %.8g, PyTorch has %.8g", name, (long long)i,
                         (double)entries[i], (double)theirs[i]);
        free(theirs);
    }
    free(norm);
}

/** The golden images are normalised floats already, which no byte could give:
 * columns of patches made from them on the host, as the device's activations,
 * take patchify's place. */
static struct {
    void *bytes;
    int64_t n_bytes;
} patch_columns;

static inline mm_status copy_patch_columns(mm_stream *stream, mm_act *columns,
                                           const uint8_t *images,
                                           int64_t n_images, int64_t size,
                                           int64_t patch, const float *mean,
                                           const float *std)
{
    (void)images, (void)n_images, (void)size, (void)patch, (void)mean,
        (void)std;
    return mm_copy_to_device(stream, columns, patch_columns.bytes,
                             patch_columns.n_bytes);
}

/** The columns of two images from the closed formula; free() the bytes. */
static inline void make_patch_columns(rig *r)
{
    int64_t size = r->config.image_size, patch = r->config.patch_size;
    int64_t grid = size / patch, n_pixels = 2 * 3 * size * size;
    const uint64_t hash = hash_of("images");
    float *columns = malloc((size_t)n_pixels * sizeof *columns), *to = columns;
    for (int64_t b = 0; b < 2; b++)
        for (int64_t g = 0; g < grid * grid; g++)
            for (int64_t c = 0; c < 3; c++)
                for (int64_t y = 0; y < patch; y++)
                    for (int64_t x = 0; x < patch; x++) {
                        int64_t row = (b * 3 + c) * size + g / grid * patch + y;
                        int64_t i = row * size + g % grid * patch + x;
                        *to++ = (float)(3 * formula(hash, (uint64_t)i));
                    }
    float *from = device_floats(r, n_pixels);
    patch_columns.n_bytes = n_pixels * mm_device_act_bytes(r->device);
    mm_act *acts = device_bytes(r, patch_columns.n_bytes);
    upload_floats(r, from, columns, n_pixels);
    must(r->ops->float_to_act(r->stream, acts, from, n_pixels));
    download(r, columns, acts, patch_columns.n_bytes);
    patch_columns.bytes = columns;
    void *buffers[] = {from, acts};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        mm_device_free(r->device, &buffers[i]);
}

/** Weights and head from the closed formula, checked, to the device. */
static inline void upload_formula(rig *r, mm_weights *golden)
{
    float *theta = malloc((size_t)r->table.n_elems * sizeof *theta);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        float *values = theta + tensor->off_elems;
        fill_by_formula(tensor, values);
        char name[192];
        snprintf(name, sizeof name, "weight_first4.%s", tensor->name);
        float *first = read_tensor(golden, name, NULL);
        assert_memory_equal(first, values, 4 * sizeof *values);
        free(first);
    }
    upload_floats(r, r->theta, theta, r->table.n_elems);
    const uint64_t hash = hash_of("head");
    for (int64_t i = 0; i < 5 * r->config.embed_dim; i++)
        theta[i] = 20 * (float)(0.2 * formula(hash, (uint64_t)i));
    upload_floats(r, r->head, theta, 5 * r->config.embed_dim);
    free(theta);
}

/** A device's `n` floats equal the golden tensor `name`. */
static inline void assert_equals_golden(rig *r, mm_weights *golden,
                                        const char *name, const float *ours,
                                        int64_t n)
{
    float *mine = fetch(r, ours, n), *theirs = read_tensor(golden, name, NULL);
    assert_close(name, mine, theirs, n, rig_bound(r, clip_bound, false));
    free(mine);
    free(theirs);
}

/** A tower on weights from the closed formula equals open_clip's numbers. */
static inline void check_full_size(const char *model)
{
    rig r;
    rig_open(&r, model, 2, 5, copy_patch_columns);
    char name[128];
    snprintf(name, sizeof name, "clip/%s.safetensors", model);
    mm_weights *golden;
    must(mm_weights_open(golden_path(name), &golden));
    upload_formula(&r, golden);
    make_patch_columns(&r);
    const int32_t labels[] = {1, 3};
    float loss = (float)rig_loss(&r, NULL, labels);
    rig_backward(&r, false);

    float *their_loss = read_tensor(golden, "loss", NULL);
    assert_close("loss", &loss, their_loss, 1,
                 rig_bound(&r, clip_bound, false));
    assert_equals_golden(&r, golden, "features", r.features,
                         2 * r.config.embed_dim);
    assert_equals_golden(&r, golden, "logits", r.logits, 2 * 5);
    float *grad = fetch(&r, r.grad, r.table.n_elems);
    for (int i = 0; i < r.table.n_tensors; i++)
        assert_gradient(&r, golden, &r.table.tensors[i],
                        grad + r.table.tensors[i].off_elems);
    free(grad);
    free(their_loss);
    free(patch_columns.bytes);
    mm_weights_close(&golden);
    rig_close(&r);
}

#endif
