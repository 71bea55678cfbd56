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
 * this takes patchify's place and lets them in. */
static const float *normalised_images;

static inline mm_status patchify_floats(mm_stream *stream, mm_act *acts,
                                        const uint8_t *images, int64_t n_images,
                                        int64_t size, int64_t patch,
                                        const float *mean, const float *std)
{
    (void)stream, (void)images, (void)mean, (void)std;
    float *columns = (float *)acts; /* on the CPU they are floats */
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

/** A tower on weights from the closed formula equals open_clip's numbers. */
static inline void check_full_size(const char *model)
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
    float loss = (float)rig_loss(&r, NULL, labels);
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

#endif
