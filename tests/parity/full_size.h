#ifndef MAGMAX_TESTS_PARITY_FULL_SIZE_H
#define MAGMAX_TESTS_PARITY_FULL_SIZE_H

#include "tests/parity/vit_rig.h"

/* Agreed bounds: of features and logits, as parts of the largest magnitude; of
 * gradient norms and entries. */
static const double clip_bound = 1e-4, clip_grad_bound = 1e-3;

static inline double formula(const char *name, uint64_t i)
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
    for (int64_t i = 0; i < tensor->n_elems; i++)
        values[i] = (float)(a * formula(name, (uint64_t)i) + b);
}

static inline void assert_gradient(mm_weights *golden, const mm_tensor *tensor,
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
 * columns of patches made from them on the host take patchify's place. */
static float *patch_columns;

static inline mm_status copy_patch_columns(mm_stream *stream, mm_act *columns,
                                           const uint8_t *images,
                                           int64_t n_images, int64_t size,
                                           int64_t patch, const float *mean,
                                           const float *std)
{
    (void)images, (void)patch, (void)mean, (void)std;
    return mm_copy_to_device(stream, columns, patch_columns,
                             n_images * 3 * size * size *
                                 (int64_t)sizeof *patch_columns);
}

/** The columns of two images from the closed formula; free() them. */
static inline float *make_patch_columns(int64_t size, int64_t patch)
{
    int64_t grid = size / patch, n_pixels = 2 * 3 * size * size;
    float *columns = malloc((size_t)n_pixels * sizeof *columns), *to = columns;
    for (int64_t b = 0; b < 2; b++)
        for (int64_t g = 0; g < grid * grid; g++)
            for (int64_t c = 0; c < 3; c++)
                for (int64_t y = 0; y < patch; y++)
                    for (int64_t x = 0; x < patch; x++) {
                        int64_t row = (b * 3 + c) * size + g / grid * patch + y;
                        int64_t i = row * size + g % grid * patch + x;
                        *to++ = (float)(3 * formula("images", (uint64_t)i));
                    }
    return columns;
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
    for (int64_t i = 0; i < 5 * r->config.embed_dim; i++)
        theta[i] = 20 * (float)(0.2 * formula("head", (uint64_t)i));
    upload_floats(r, r->head, theta, 5 * r->config.embed_dim);
    free(theta);
}

/** A device's `n` floats equal the golden tensor `name`. */
static inline void assert_equals_golden(rig *r, mm_weights *golden,
                                        const char *name, const float *ours,
                                        int64_t n)
{
    float *mine = fetch(r, ours, n), *theirs = read_tensor(golden, name, NULL);
    assert_close(name, mine, theirs, n, clip_bound);
    free(mine);
    free(theirs);
}

/** A tower on weights from the closed formula equals open_clip's numbers. */
static inline void check_full_size(const char *model)
{
    rig r;
    rig_open(&r, model, 2, 5, copy_patch_columns);
    char path[128];
    snprintf(path, sizeof path, GOLDEN "clip/%s.safetensors", model);
    mm_weights *golden;
    must(mm_weights_open(path, &golden));
    upload_formula(&r, golden);
    patch_columns =
        make_patch_columns(r.config.image_size, r.config.patch_size);
    const int32_t labels[] = {1, 3};
    float loss = (float)rig_loss(&r, NULL, labels);
    rig_backward(&r, false);

    float *their_loss = read_tensor(golden, "loss", NULL);
    assert_close("loss", &loss, their_loss, 1, clip_bound);
    assert_equals_golden(&r, golden, "features", r.features,
                         2 * r.config.embed_dim);
    assert_equals_golden(&r, golden, "logits", r.logits, 2 * 5);
    float *grad = fetch(&r, r.grad, r.table.n_elems);
    for (int i = 0; i < r.table.n_tensors; i++)
        assert_gradient(golden, &r.table.tensors[i],
                        grad + r.table.tensors[i].off_elems);
    free(grad);
    free(their_loss);
    free(patch_columns);
    mm_weights_close(&golden);
    rig_close(&r);
}

#endif
