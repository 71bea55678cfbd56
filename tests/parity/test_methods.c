/*
 * The ops of EWC and LwF in their place: the small tower trained on three tasks
 * in a row, every loss and gradient norm against PyTorch's float64 numbers.
 *
 * ctest: processors=2 cuda cost=30
 */
#include "tests/parity/vit_rig.h"
#include "tests/sanitize/sanitized.h"

enum {
    N_TASKS = 3,
    N_TRAINED = SANITIZED ? 2 : N_TASKS,
    N_CLASSES = 2, /* of a task */
    N_STEPS = 12,
    LAST_STEPS = SANITIZED ? 2 : N_STEPS, /* of the last task */
    B = 8,
    SIZE = 32,
    PLANE = SIZE * SIZE,
    N_IMAGES = N_TASKS * N_STEPS * B,
    EMBED = 32
};

static const float ewc_lambda = 50.0f, lwf_lambda = 0.3f;

/* Four times what PyTorch's own float32 deviates by. */
static const double loss_bound = 3e-5, norm_bound = 6e-3;

typedef struct run {
    rig rig;
    uint8_t *images; /* host [N_IMAGES, SIZE, SIZE, 3] */
    int32_t labels[N_IMAGES];
    float *m, *v, *fisher, *old, *old_logits, *few, *dfew;
    double *sum;
    json_t *text;
    const json_t *log;
} run;

static void read_images(run *t)
{
    const char *data = golden_path("tiny/data.safetensors");
    float head[N_TASKS * N_CLASSES * EMBED];
    uint8_t *planes = malloc(N_IMAGES * 3 * PLANE);
    t->images = malloc(N_IMAGES * 3 * PLANE);
    read_raw(data, "images", planes, N_IMAGES * 3 * PLANE);
    for (int b = 0; b < N_IMAGES; b++)
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < PLANE; i++)
                t->images[(b * PLANE + i) * 3 + c] =
                    planes[(b * 3 + c) * PLANE + i];
    free(planes);
    read_raw(data, "labels", t->labels, sizeof t->labels);
    read_raw(data, "head_weight", head, sizeof head);
    upload_floats(&t->rig, t->rig.head, head, N_TASKS * N_CLASSES * EMBED);
}

static void zero(run *t, float *x)
{
    rig *r = &t->rig;
    must(r->ops->fill(r->stream, x, 0, r->table.n_elems));
}

/* Activations are fp32 here, as weights are. */
static void copy(run *t, float *to, const float *from)
{
    rig *r = &t->rig;
    int64_t n = r->table.n_elems;
    must(r->ops->copy_rows(r->stream, (mm_act *)to, n, (const mm_act *)from, n,
                           1, n));
}

static void run_open(run *t, const char *method)
{
    memset(t, 0, sizeof *t);
    rig *r = &t->rig;
    rig_open(r, golden_path("tiny/model.json"), B, N_TASKS * N_CLASSES, NULL);
    int64_t n = r->table.n_elems;
    float **parameters[] = {&t->m, &t->v, &t->fisher, &t->old};
    for (int i = 0; i < 4; i++)
        *parameters[i] = device_floats(r, n);
    t->old_logits = device_floats(r, B * N_TASKS * N_CLASSES);
    t->few = device_floats(r, B * N_CLASSES);
    t->dfew = device_floats(r, B * N_CLASSES);
    t->sum = device_bytes(r, (int64_t)sizeof *t->sum);
    read_images(t);
    float *theta = malloc((size_t)n * sizeof *theta);
    must(mm_weights_load(golden_path("tiny/weights.safetensors"), &r->table,
                         theta));
    upload_floats(r, r->theta, theta, n);
    free(theta);
    zero(t, t->fisher);
    t->text = json_load_file(golden_path("tiny/runs.json"), 0, NULL);
    t->log = json_object_get(json_object_get(t->text, "logs"), method);
    assert_int_equal(json_array_size(t->log), N_TASKS * N_STEPS);
}

static void run_close(run *t)
{
    void *buffers[] = {t->m,          t->v,   t->fisher, t->old,
                       t->old_logits, t->few, t->dfew,   t->sum};
    must(mm_stream_sync(t->rig.stream));
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        mm_device_free(t->rig.device, &buffers[i]);
    json_decref(t->text);
    free(t->images);
    rig_close(&t->rig);
}

static double logged(const run *t, int task, int step, const char *key)
{
    const json_t *entry =
        json_array_get(t->log, (size_t)(task * N_STEPS + step));
    return json_number_value(json_object_get(entry, key));
}

static double scalar(run *t)
{
    double value;
    download(&t->rig, &value, t->sum, (int64_t)sizeof value);
    return value;
}

/** Logits of a batch over rows [0, n_rows) of the head from row `first`. */
static void forward(run *t, const float *theta, int batch, int first,
                    int n_rows, float *logits)
{
    rig *r = &t->rig;
    upload(r, r->images, t->images + (int64_t)batch * B * PLANE * 3,
           B * PLANE * 3);
    must(mm_vit_forward(r->vit, theta, (const mm_act *)theta, r->images, B,
                        &r->features));
    must(r->ops->normalized_logits(r->stream, logits, r->inv_norm, r->features,
                                   r->head + first * EMBED, B, EMBED, n_rows));
}

/** Mean cross-entropy of logits for a task's classes, and its gradient. */
static double cross_entropy(run *t, const int32_t *labels, float *dlogits,
                            const float *logits)
{
    rig *r = &t->rig;
    upload(r, r->labels, labels, B * (int64_t)sizeof *labels);
    must(r->ops->softmax_cross_entropy(r->stream, t->sum, dlogits, logits,
                                       r->labels, 0, 1.0f / B, B, N_CLASSES));
    return scalar(t) / B;
}

static void backward(run *t, int first, int n_rows, bool accumulate)
{
    rig *r = &t->rig;
    must(r->ops->normalized_logits_grad(
        r->stream, r->dfeatures, r->dlogits, r->features, r->inv_norm,
        r->head + first * EMBED, B, EMBED, n_rows));
    must(mm_vit_backward(r->vit, r->theta, (const mm_act *)r->theta, r->grad,
                         r->dfeatures, accumulate, NULL));
}

static void labels_of_task(const run *t, int batch, int32_t *labels)
{
    for (int b = 0; b < B; b++)
        labels[b] = t->labels[batch * B + b] % N_CLASSES;
}

/* ---- losses ------------------------------------------------------------- */

/** Cross-entropy and, after the first task, the penalty. */
static double ewc_loss(run *t, int task, int batch)
{
    rig *r = &t->rig;
    int32_t labels[B];
    labels_of_task(t, batch, labels);
    forward(t, r->theta, batch, task * N_CLASSES, N_CLASSES, r->logits);
    double loss = cross_entropy(t, labels, r->dlogits, r->logits);
    backward(t, task * N_CLASSES, N_CLASSES, false);
    if (task == 0)
        return loss;
    must(r->ops->ewc_penalty(r->stream, t->sum, r->grad, r->theta, t->old,
                             t->fisher, ewc_lambda, r->table.n_elems));
    return loss + scalar(t);
}

/** One product makes the logits of the earlier classes, in front, and of the
 * task's. */
static double lwf_loss(run *t, int task, int batch)
{
    rig *r = &t->rig;
    int n_old = task * N_CLASSES, n = n_old + N_CLASSES;
    int32_t labels[B];
    labels_of_task(t, batch, labels);
    if (task > 0)
        forward(t, t->old, batch, 0, n_old, t->old_logits);
    forward(t, r->theta, batch, 0, n, r->logits);
    must(r->ops->copy_rows(r->stream, (mm_act *)t->few, N_CLASSES,
                           (const mm_act *)(r->logits + n_old), n, B,
                           N_CLASSES));
    double loss = cross_entropy(t, labels, t->dfew, t->few), penalty = 0;
    must(r->ops->copy_rows(r->stream, (mm_act *)(r->dlogits + n_old), n,
                           (const mm_act *)t->dfew, N_CLASSES, B, N_CLASSES));
    if (task > 0) {
        must(r->ops->distillation_loss(r->stream, t->sum, r->dlogits, r->logits,
                                       n, t->old_logits, 2, lwf_lambda / B,
                                       false, B, n_old));
        penalty = scalar(t) / B;
    }
    backward(t, 0, n, false);
    return loss + lwf_lambda * penalty;
}

/* ---- training ----------------------------------------------------------- */

static double clip_of(double norm)
{
    return fmin(1.0, 1.0 / (norm + 1e-6));
}

static double grad_norm(run *t)
{
    rig *r = &t->rig;
    must(r->ops->sum_squares(r->stream, t->sum, r->grad, r->table.n_elems));
    return sqrt(scalar(t));
}

/** Clipped by the squared norm that grad_norm leaves on the device. */
static void update(run *t, int step, double lr)
{
    rig *r = &t->rig;
    mm_adamw adamw = {.lr = (float)lr,
                      .beta1 = 0.9f,
                      .beta2 = 0.999f,
                      .eps = 1e-8f,
                      .weight_decay = 0.1f,
                      .bias1 = (float)(1.0 - pow(0.9, step + 1)),
                      .bias2 = (float)(1.0 - pow(0.999, step + 1)),
                      .clip = 1,
                      .grad_squares = t->sum};
    must(r->ops->adamw(r->stream, r->theta, t->m, t->v, NULL, r->grad, &adamw,
                       r->table.n_elems));
}

/** Leaves the last step's gradient, clipped. */
static void train_task(run *t, int task,
                       double (*loss_of)(run *t, int task, int batch))
{
    rig *r = &t->rig;
    double norm = 0;
    copy(t, t->old, r->theta);
    zero(t, t->m);
    zero(t, t->v);
    int n_steps = task == N_TRAINED - 1 ? LAST_STEPS : N_STEPS;
    for (int step = 0; step < n_steps; step++) {
        double loss = loss_of(t, task, task * N_STEPS + step);
        norm = grad_norm(t);
        double their_loss = logged(t, task, step, "loss");
        double their_norm = logged(t, task, step, "grad_norm");
        if (!(fabs(loss - their_loss) <= loss_bound))
            fail_msg("task %d, step %d: loss %.9g, PyTorch's %.9g", task, step,
                     loss, their_loss);
        if (!(fabs(norm - their_norm) <= norm_bound * their_norm))
            fail_msg("task %d, step %d: gradient norm %.9g, PyTorch's %.9g",
                     task, step, norm, their_norm);
        update(t, step, logged(t, task, step, "lr"));
    }
    float *grad = fetch(r, r->grad, r->table.n_elems);
    for (int64_t i = 0; i < r->table.n_elems; i++)
        grad[i] *= (float)clip_of(norm);
    upload_floats(r, r->grad, grad, r->table.n_elems);
    free(grad);
}

/* ---- Fisher information ------------------------------------------------- */

/**
 * One pass over a task's images, the labels being the model's own answers:
 * fisher = keep fisher + scale sum of grad^2. With `accumulate` a batch's
 * gradient is added to that of the batches before it, as the authors do.
 */
static void fold_task(run *t, int task, bool accumulate, float keep,
                      float scale)
{
    rig *r = &t->rig;
    for (int step = 0; step < N_STEPS; step++) {
        forward(t, r->theta, task * N_STEPS + step, task * N_CLASSES, N_CLASSES,
                r->logits);
        float *logits = fetch(r, r->logits, B * N_CLASSES);
        int32_t labels[B];
        for (int b = 0; b < B; b++)
            labels[b] = logits[b * N_CLASSES + 1] > logits[b * N_CLASSES];
        free(logits);
        cross_entropy(t, labels, r->dlogits, r->logits);
        backward(t, task * N_CLASSES, N_CLASSES, accumulate);
        must(r->ops->fold_fisher(r->stream, t->fisher, r->grad,
                                 step == 0 ? keep : 1.0f, scale,
                                 r->table.n_elems));
    }
}

static void compare_fisher(run *t, const char *kind)
{
    rig *r = &t->rig;
    mm_weights *file;
    must(mm_weights_open(golden_path("tiny/fisher_task_000.safetensors"),
                         &file));
    float *ours = fetch(r, t->fisher, r->table.n_elems);
    for (int i = 0; i < r->table.n_tensors; i++) {
        const mm_tensor *tensor = &r->table.tensors[i];
        char name[160];
        snprintf(name, sizeof name, "%s.%s", kind, tensor->name);
        float *theirs = read_tensor(file, name, NULL);
        /* Squares of gradients, whose norms may differ by norm_bound. */
        assert_close(name, ours + tensor->off_elems, theirs, tensor->n_elems,
                     2 * norm_bound);
        free(theirs);
    }
    free(ours);
    mm_weights_close(&file);
}

/* ---- tests -------------------------------------------------------------- */

/* Over the sum of 8 grad^2, the authors divide by 8 (batches + 1). */
static const float fisher_scale = 1.0f / (N_STEPS + 1);

/** The textbook's, each batch by itself; the gradient that is there stays. */
static void check_textbook_fisher(run *t)
{
    rig *r = &t->rig;
    float *grad = fetch(r, r->grad, r->table.n_elems);
    fold_task(t, 0, false, 1, fisher_scale);
    compare_fisher(t, "textbook");
    zero(t, t->fisher);
    upload_floats(r, r->grad, grad, r->table.n_elems);
    free(grad);
}

static void ewc_follows_pytorch_over_three_tasks(void **state)
{
    (void)state;
    run t;
    run_open(&t, "ewc");
    for (int task = 0; task < N_TRAINED; task++) {
        train_task(&t, task, ewc_loss);
        if (task == N_TRAINED - 1)
            break;
        if (task == 0)
            check_textbook_fisher(&t);
        /* F = (F_old + F_new) / 2 in the same passes. */
        fold_task(&t, task, true, 0.5f, 0.5f * fisher_scale);
        if (task == 0)
            compare_fisher(&t, "official");
    }
    run_close(&t);
}

static void lwf_follows_pytorch_over_three_tasks(void **state)
{
    (void)state;
    run t;
    run_open(&t, "lwf");
    for (int task = 0; task < N_TRAINED; task++)
        train_task(&t, task, lwf_loss);
    run_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ewc_follows_pytorch_over_three_tasks),
        cmocka_unit_test(lwf_follows_pytorch_over_three_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
