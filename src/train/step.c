#include "src/train/step.h"

#include "comm/reducer.h"
#include "src/base/arena.h"
#include "src/model/params.h"
#include "src/model/shadow.h"
#include "src/model/vit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A message large enough for full bandwidth, small enough that the first leaves
 * early (26 MB, as measured for host transports). */
enum { BUCKET_ELEMS = 6500000 };

/* AdamW's constants, PyTorch's defaults. */
static const double beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8;

struct mm_stepper {
    mm_step_plan plan;
    const mm_ops *ops;
    mm_stream *stream;
    mm_vit *vit;
    mm_reducer *reducer;
    int64_t n_params;
    int64_t n_classes; /* of the current task */
    int64_t n_done;    /* steps of the current task */
    float *host_head;  /* [most_classes, E] the task's rows, gathered */

    void *memory; /* device */
    int64_t n_bytes;
    float *theta, *grad, *m, *v; /* [n_params] */
    mm_act *shadow;              /* of theta, or NULL */
    float *head;                 /* [most_classes, E] */
    uint8_t *images;
    int32_t *labels;
    float *logits, *dlogits; /* [B, most_classes] */
    float *inv_norm;         /* [B] */
    float *dfeatures;        /* [B, E] */
    double *loss_sum;        /* 1 */
    double *grad_squares;    /* 1 */
};

/* ---- memory ------------------------------------------------------------ */

static void lay_out(mm_stepper *s, mm_arena *arena)
{
    const mm_model_config *c = s->plan.config;
    int64_t b = s->plan.most_images, classes = s->plan.most_classes;
    s->theta = mm_arena_floats(arena, s->n_params);
    s->grad = mm_arena_floats(arena, s->n_params);
    s->m = mm_arena_floats(arena, s->n_params);
    s->v = mm_arena_floats(arena, s->n_params);
    s->shadow = mm_shadow_take(arena, s->plan.device, s->n_params);
    s->head = mm_arena_floats(arena, classes * c->embed_dim);
    s->images = mm_arena_take(arena, b * c->image_size * c->image_size * 3);
    s->labels = mm_arena_take(arena, b * (int64_t)sizeof *s->labels);
    s->logits = mm_arena_floats(arena, b * classes);
    s->dlogits = mm_arena_floats(arena, b * classes);
    s->inv_norm = mm_arena_floats(arena, b);
    s->dfeatures = mm_arena_floats(arena, b * c->embed_dim);
    s->loss_sum = mm_arena_take(arena, (int64_t)sizeof *s->loss_sum);
    s->grad_squares = mm_arena_take(arena, (int64_t)sizeof *s->grad_squares);
}

static mm_status count_params(const mm_model_config *config, int64_t *n)
{
    mm_tensor_table table = {0};
    mm_status st = mm_params_table(config, &table);
    *n = table.n_elems;
    mm_tensor_table_clear(&table);
    return st;
}

static mm_status create_local(mm_stepper *s)
{
    const mm_step_plan *p = &s->plan;
    if (mm_comm_n_ranks(p->comm) > 1 && mm_device_has_own_memory(p->device))
        return mm_fail(MM_E_ARG,
                       "several ranks cannot train on GPUs yet: give --device "
                       "cpu, or start one rank");
    MM_TRY(count_params(p->config, &s->n_params));
    MM_TRY(mm_stream_create(p->device, &s->stream));
    MM_TRY(mm_vit_create(p->device, s->stream, p->config, MM_VIT_TRAINING,
                         p->most_images, &s->vit));
    MM_TRY(mm_reducer_create(p->comm, BUCKET_ELEMS, &s->reducer));
    mm_arena arena = {0};
    lay_out(s, &arena);
    s->n_bytes = arena.used;
    MM_TRY(mm_device_alloc(p->device, s->n_bytes, &s->memory));
    arena = (mm_arena){.base = s->memory};
    lay_out(s, &arena);
    s->host_head = malloc((size_t)(p->most_classes * p->config->embed_dim) *
                          sizeof *s->host_head);
    if (!s->host_head)
        return mm_fail(MM_E_MEMORY, "no memory for a task's head");
    if (mm_comm_n_ranks(p->comm) > 1)
        mm_stream_set_poll(s->stream, mm_reducer_poll, s->reducer);
    return MM_OK;
}

mm_status mm_stepper_create(const mm_step_plan *plan, mm_stepper **stepper)
{
    mm_stepper *s = calloc(1, sizeof *s);
    mm_status st = mm_fail(MM_E_MEMORY, "no memory for a training step");
    if (s) {
        s->plan = *plan;
        s->ops = mm_device_ops(plan->device);
        st = create_local(s);
    }
    st = mm_comm_agree(plan->comm, st);
    if (st != MM_OK)
        mm_stepper_destroy(&s);
    *stepper = s;
    return st;
}

void mm_stepper_destroy(mm_stepper **stepper)
{
    mm_stepper *s = *stepper;
    if (!s)
        return;
    free(s->host_head);
    mm_device_release(s->plan.device, &s->memory);
    mm_reducer_destroy(&s->reducer);
    mm_vit_destroy(&s->vit);
    mm_stream_destroy(&s->stream);
    free(s);
    *stepper = NULL;
}

int64_t mm_stepper_n_bytes(const mm_stepper *s)
{
    return s->n_bytes + mm_vit_n_bytes(s->vit);
}

double mm_stepper_wait_s(const mm_stepper *s)
{
    return mm_reducer_wait_s(s->reducer);
}

/* ---- tasks ------------------------------------------------------------- */

mm_status mm_stepper_begin_task(mm_stepper *s, const float *theta,
                                const mm_head *head, const mm_task *task)
{
    MM_ASSERT(task->n_classes <= s->plan.most_classes);
    int64_t e = head->embed_dim;
    for (int i = 0; i < task->n_classes; i++)
        memcpy(s->host_head + i * e, head->weight + task->classes[i] * e,
               (size_t)e * sizeof *s->host_head);
    s->n_classes = task->n_classes;
    s->n_done = 0;
    int64_t n_bytes = s->n_params * (int64_t)sizeof *theta;
    MM_TRY(mm_copy_to_device(s->stream, s->theta, theta, n_bytes));
    MM_TRY(mm_shadow_fill(s->ops, s->stream, s->shadow, s->theta, s->n_params));
    MM_TRY(mm_copy_to_device(s->stream, s->head, s->host_head,
                             s->n_classes * e * (int64_t)sizeof *s->host_head));
    MM_TRY(s->ops->fill(s->stream, s->m, 0, s->n_params));
    MM_TRY(s->ops->fill(s->stream, s->v, 0, s->n_params));
    return mm_stream_sync(s->stream);
}

mm_status mm_stepper_read(mm_stepper *s, float *theta)
{
    MM_TRY(mm_copy_to_host(s->stream, theta, s->theta,
                           s->n_params * (int64_t)sizeof *theta));
    return mm_stream_sync(s->stream);
}

/* ---- one step ---------------------------------------------------------- */

static mm_status range_ready(void *context, float *grad, int64_t lo, int64_t hi)
{
    mm_stepper *s = context;
    return mm_reducer_ready(s->reducer, grad, lo, hi);
}

/** Forward, loss, backward: this rank's part of the summed gradient. */
static mm_status compute_gradient(mm_stepper *s, const mm_batch *batch,
                                  int64_t n_images)
{
    const mm_model_config *c = s->plan.config;
    const mm_ops *ops = s->ops;
    int64_t image_bytes = c->image_size * c->image_size * 3;
    const mm_act *weights = mm_shadow_or_theta(s->shadow, s->theta);
    float *features;
    MM_TRY(mm_copy_to_device(s->stream, s->images, batch->images,
                             n_images * image_bytes));
    MM_TRY(mm_copy_to_device(s->stream, s->labels, batch->labels,
                             n_images * (int64_t)sizeof *s->labels));
    MM_TRY(mm_vit_forward(s->vit, s->theta, weights, s->images, n_images,
                          &features));
    MM_TRY(ops->normalized_logits(s->stream, s->logits, s->inv_norm, features,
                                  s->head, n_images, c->embed_dim,
                                  s->n_classes));
    MM_TRY(ops->softmax_cross_entropy(
        s->stream, s->loss_sum, s->dlogits, s->logits, s->labels,
        (float)s->plan.label_smoothing, (float)(1.0 / (double)batch->n_global),
        n_images, s->n_classes));
    MM_TRY(ops->normalized_logits_grad(s->stream, s->dfeatures, s->dlogits,
                                       features, s->inv_norm, s->head, n_images,
                                       c->embed_dim, s->n_classes));
    mm_grad_listener listener = {range_ready, s};
    MM_TRY(mm_vit_backward(s->vit, s->theta, weights, s->grad, s->dfeatures,
                           false, &listener));
    return mm_reducer_finish(s->reducer);
}

static mm_status read_scalar(mm_stepper *s, const double *device, double *host)
{
    MM_TRY(mm_copy_to_host(s->stream, host, device, (int64_t)sizeof *host));
    return mm_stream_sync(s->stream);
}

static mm_status update(mm_stepper *s, double lr, double grad_norm)
{
    double step = (double)++s->n_done;
    double clip = s->plan.clip;
    double scale = clip > 0 ? fmin(1.0, clip / (grad_norm + 1e-6)) : 1.0;
    mm_adamw adamw = {
        .lr = (float)lr,
        .beta1 = (float)beta1,
        .beta2 = (float)beta2,
        .eps = (float)adam_eps,
        .weight_decay = (float)s->plan.weight_decay,
        .bias1 = (float)(1.0 - pow(beta1, step)),
        .bias2 = (float)(1.0 - pow(beta2, step)),
        .grad_scale = (float)scale,
    };
    return s->ops->adamw(s->stream, s->theta, s->m, s->v, s->shadow, s->grad,
                         &adamw, s->n_params);
}

/** A rank that fails where others are in the middle of summing gradients can
 * only end the job. */
static mm_status fatal(const mm_stepper *s, mm_status st)
{
    bool alone = mm_comm_n_ranks(s->plan.comm) == 1;
    return st == MM_OK || alone
               ? st
               : mm_fail(MM_E_COMM, "rank %d: %s", mm_comm_rank(s->plan.comm),
                         mm_fail_message());
}

mm_status mm_stepper_step(mm_stepper *s, const mm_batch *batch,
                          mm_status batch_status, double lr,
                          mm_step_result *result)
{
    /* A rank without a batch joins in with no images, and says so with the
     * loss, so that agreeing costs no message of its own. */
    int64_t n_images = batch_status == MM_OK ? batch->n_images : 0;
    double told[2] = {0, batch_status == MM_OK ? 0 : 1};
    MM_TRY(fatal(s, compute_gradient(s, batch, n_images)));
    MM_TRY(fatal(s, read_scalar(s, s->loss_sum, &told[0])));
    MM_TRY(mm_comm_sum_double(s->plan.comm, told, 2));
    if (told[1] > 0)
        return mm_comm_agree(s->plan.comm, batch_status);

    double squares;
    MM_TRY(
        s->ops->sum_squares(s->stream, s->grad_squares, s->grad, s->n_params));
    MM_TRY(read_scalar(s, s->grad_squares, &squares));
    result->loss = told[0] / (double)batch->n_global;
    result->grad_norm = sqrt(squares);
    if (!isfinite(result->loss) || !isfinite(result->grad_norm))
        return mm_fail(MM_E_VALUE, "the loss is %g and the gradient's norm %g",
                       result->loss, result->grad_norm);
    return update(s, lr, result->grad_norm);
}
