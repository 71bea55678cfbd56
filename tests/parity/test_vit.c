/*
 * The image tower against PyTorch's float64 numbers: every activation, logit
 * and gradient of a small tower, and finite differences of its loss.
 *
 * ctest: cost=10 processors=2 cuda=tf32,bf16 bias_sums=fp32,bf16
 */
#include "tests/parity/vit_rig.h"
#include "tests/sanitize/sanitized.h"

/* Of fp32, as a part of a tensor's largest magnitude. */
static const double tiny_bound = 1e-5;

/* ---- the small tower ---------------------------------------------------- */

typedef struct tiny {
    rig rig;
    float *theta; /* host */
    uint8_t *images;
    int32_t labels[8];
} tiny;

static void tiny_open(tiny *t)
{
    enum { SIZE = 32, B = 8, PLANE = SIZE * SIZE };
    const char *data = golden_path("tiny/data.safetensors");
    rig *r = &t->rig;
    rig_open(r, golden_path("tiny/model.json"), B, 6, NULL);
    float head[6 * 32];
    t->theta = malloc((size_t)r->table.n_elems * sizeof *t->theta);
    must(mm_weights_load(golden_path("tiny/weights.safetensors"), &r->table,
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
    must(mm_weights_open(golden_path("tiny/step.safetensors"), &step));
    double bound = rig_bound(r, tiny_bound, false);
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
            assert_close(name, ours, theirs, 8 * n_tokens * width, bound);
        } else { /* class tokens only */
            for (int64_t b = 0; b < 8; b++)
                memmove(theirs + b * width, theirs + b * n_tokens * width,
                        (size_t)width * sizeof *theirs);
            assert_close(name, ours, theirs, 8 * width, bound);
        }
        free(theirs);
    }
    free(ours);

    float *features = read_tensor(step, "features", NULL);
    float *logits = read_tensor(step, "logits", NULL);
    float *their_loss = read_tensor(step, "loss", NULL);
    float *our_features = fetch(r, r->features, 8 * 32);
    float *our_logits = fetch(r, r->logits, 8 * 6);
    assert_close("features", our_features, features, 8 * 32, bound);
    assert_close("logits", our_logits, logits, 8 * 6, bound);
    float our_loss = (float)loss;
    assert_close("loss", &our_loss, their_loss, 1, bound);
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
    must(mm_weights_open(golden_path("tiny/step.safetensors"), &step));
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
        assert_close(name, grad + tensor->off_elems, theirs, n,
                     rig_bound(r, tiny_bound, true));
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
    /* In tf32 a bias's gradient may be summed from rounded numbers, within the
     * product, or, when it is added to, from exact ones. */
    bool rounds = strcmp(mm_device_precision(r->device), "tf32") == 0;
    double bound = 1e-6 + (rounds ? 0x1p-10 : 0);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        float *half = twice + tensor->off_elems;
        for (int64_t j = 0; j < tensor->n_elems; j++)
            half[j] *= 0.5f;
        assert_close(tensor->name, half, once + tensor->off_elems,
                     tensor->n_elems, bound);
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
    if (strcmp(mm_device_precision(r->device), "fp32") != 0) {
        tiny_close(&t); /* a loss of three digits has no differences */
        skip();
    }
    rig_loss(r, t.images, t.labels);
    rig_backward(r, false);
    float *grad = fetch(r, r->grad, r->table.n_elems);
    float *moved = fetch(r, r->theta, r->table.n_elems);
    for (int i = 0; i < r->table.n_tensors; i += SANITIZED ? 8 : 1) {
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_logits_and_loss_equal_pytorchs),
        cmocka_unit_test(every_gradient_equals_pytorchs),
        cmocka_unit_test(accumulating_twice_doubles_every_gradient),
        cmocka_unit_test(gradients_agree_with_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
