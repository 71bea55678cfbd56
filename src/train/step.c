/* One data-parallel training step: forward, loss, backward with the gradients'
 * reduction, clipping and AdamW. */

#include "src/train/step.h"

#include "comm/check_same.h"
#include "comm/reducer.h"
#include "src/input/upload.h"
#include "src/model/low_precision.h"
#include "src/model/vit.h"
#include "src/train/step_memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Messages large enough for full bandwidth, small enough that the first leaves
 * early (26 MB, as measured for host transports). Each block of ViT-B or ViT-L
 * makes one. */
enum { BUCKET_ELEMS = 6500000 };

/* AdamW's constants, PyTorch's defaults. */
static const double beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8;

struct mm_stepper {
    mm_step_plan plan;
    const mm_ops *ops;
    mm_stream *stream;
    mm_vit *vit;
    mm_reducer *reducer;
    mm_reducer_wire bf16; /* of the reducer, where asked for */
    mm_step_sizes sizes;
    mm_step_memory memory; /* on the device */
    int64_t n_classes;     /* of the current task */
    int64_t n_done;        /* steps of the current task */
    float *host_head;      /* [most_classes, E] the task's rows, gathered */
    mm_upload *upload;

    /* The step under way. */
    int64_t n_global; /* 0: there is none */
    int64_t n_parts;
    mm_event *done; /* its outcome is on the host */
    void *host_memory;
    double *host_outcome;
};

static mm_status create_local(mm_stepper *s)
{
    const mm_step_plan *p = &s->plan;
    if (p->reduce_bf16 && mm_device_act_bytes(p->device) != 2)
        return mm_fail(MM_E_ARG, "--reduce-dtype bf16 needs --precision bf16");
    MM_TRY(mm_step_sizes_of(p, &s->sizes));
    MM_TRY(mm_stream_create(p->device, &s->stream));
    MM_TRY(mm_vit_create(p->device, s->stream, p->config, s->sizes.use,
                         s->sizes.part_images, &s->vit));
    MM_TRY(mm_upload_create(p->device, s->sizes.batch_bytes, &s->upload));
    MM_TRY(mm_event_create(p->device, &s->done));
    MM_TRY(mm_host_alloc(p->device, s->sizes.outcome_bytes, &s->host_memory));
    s->host_outcome = s->host_memory;
    MM_TRY(mm_step_memory_alloc(p, &s->sizes, &s->memory));
    s->host_head = malloc((size_t)(p->most_classes * p->config->embed_dim) *
                          sizeof *s->host_head);
    if (!s->host_head)
        return mm_fail(MM_E_MEMORY, "no memory for a task's head");
    return MM_OK;
}

/** bf16 on the way between GPUs: the ops' casts to activations and back. */
static mm_status pack(void *context, mm_stream *stream, void *wire,
                      const float *values, int64_t n)
{
    const mm_stepper *s = context;
    return s->ops->float_to_act(stream, wire, values, n);
}

static mm_status unpack(void *context, mm_stream *stream, float *values,
                        const void *wire, int64_t n)
{
    const mm_stepper *s = context;
    return s->ops->act_to_float(stream, values, wire, n);
}

static mm_status connect(mm_stepper *s)
{
    const mm_step_plan *p = &s->plan;
    mm_reducer_plan plan = {
        .comm = p->comm,
        .device = p->device,
        .stream = s->stream,
        .bucket_elems = BUCKET_ELEMS,
        .bf16 = p->reduce_bf16 ? &s->bf16 : NULL,
    };
    s->bf16 = (mm_reducer_wire){pack, unpack, s};
    MM_TRY(mm_reducer_create(&plan, &s->reducer));
    if (mm_comm_n_ranks(p->comm) > 1)
        mm_stream_set_poll(s->stream, mm_reducer_poll, s->reducer);
    return MM_OK;
}

mm_status mm_stepper_create(const mm_step_plan *plan, mm_stepper **stepper)
{
    MM_TRY(MM_CHECK_SAME(
        plan->comm, MM_SAME_INT(plan->most_classes),
        MM_SAME_REAL(plan->weight_decay), MM_SAME_REAL(plan->clip),
        MM_SAME_REAL(plan->label_smoothing), MM_SAME_INT(plan->reduce_bf16)));
    mm_stepper *s = calloc(1, sizeof *s);
    mm_status st = mm_fail(MM_E_MEMORY, "no memory for a training step");
    if (s) {
        s->plan = *plan;
        s->ops = mm_device_ops(plan->device);
        st = create_local(s);
    }
    st = mm_comm_agree(plan->comm, st);
    if (st == MM_OK)
        st = connect(s);
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
    mm_reducer_destroy(&s->reducer);
    if (s->stream)
        (void)mm_stream_sync(s->stream);
    mm_upload_destroy(&s->upload);
    mm_event_destroy(&s->done);
    mm_host_free(s->plan.device, &s->host_memory);
    mm_step_memory_free(s->plan.device, &s->memory);
    mm_vit_destroy(&s->vit);
    mm_stream_destroy(&s->stream);
    free(s);
    *stepper = NULL;
}

int64_t mm_stepper_n_bytes(const mm_stepper *s)
{
    return s->memory.n_bytes + mm_vit_n_bytes(s->vit) +
           mm_upload_n_bytes(s->plan.device, s->sizes.batch_bytes);
}

double mm_stepper_wait_s(const mm_stepper *s)
{
    return mm_reducer_wait_s(s->reducer);
}

/* ---- tasks ------------------------------------------------------------- */

mm_status mm_stepper_start_task(mm_stepper *s, const float *theta,
                                const mm_head *head, const mm_task *task)
{
    MM_ASSERT(task->n_classes <= s->plan.most_classes);
    const mm_step_memory *mem = &s->memory;
    int64_t n = s->sizes.n_params, e = head->embed_dim;
    for (int i = 0; i < task->n_classes; i++)
        memcpy(s->host_head + i * e, head->weight + task->classes[i] * e,
               (size_t)e * sizeof *s->host_head);
    s->n_classes = task->n_classes;
    s->n_done = 0;
    s->n_global = 0;
    MM_TRY(mm_copy_to_device(s->stream, mem->theta, theta,
                             n * (int64_t)sizeof *theta));
    MM_TRY(mm_low_precision_fill(s->ops, s->stream, mem->theta_low, mem->theta,
                                 n));
    MM_TRY(mm_copy_to_device(s->stream, mem->head, s->host_head,
                             s->n_classes * e * (int64_t)sizeof *s->host_head));
    MM_TRY(s->ops->fill(s->stream, mem->m, 0, n));
    MM_TRY(s->ops->fill(s->stream, mem->v, 0, n));
    return mm_stream_sync(s->stream);
}

mm_status mm_stepper_read(mm_stepper *s, float *theta)
{
    MM_TRY(mm_copy_to_host(s->stream, theta, s->memory.theta,
                           s->sizes.n_params * (int64_t)sizeof *theta));
    return mm_stream_sync(s->stream);
}

/* ---- one step ---------------------------------------------------------- */

static mm_status range_ready(void *context, float *grad, int64_t lo, int64_t hi)
{
    mm_stepper *s = context;
    return mm_reducer_ready(s->reducer, grad, lo, hi);
}

/** Forward, loss and backward of one part of a batch. */
static mm_status compute_part(mm_stepper *s, const mm_batch *part,
                              double *loss_sum, bool first, bool last)
{
    const mm_step_memory *mem = &s->memory;
    const mm_model_config *c = s->plan.config;
    const mm_ops *ops = s->ops;
    const mm_act *weights =
        mm_low_precision_or_theta(mem->theta_low, mem->theta);
    int64_t n = part->n_images;
    float *features;
    MM_TRY(mm_vit_forward(s->vit, mem->theta, weights, part->images, n,
                          &features));
    MM_TRY(ops->normalized_logits(s->stream, mem->logits, mem->inv_norm,
                                  features, mem->head, n, c->embed_dim,
                                  s->n_classes));
    MM_TRY(ops->softmax_cross_entropy(
        s->stream, loss_sum, mem->dlogits, mem->logits, part->labels,
        (float)s->plan.label_smoothing, (float)(1.0 / (double)part->n_global),
        n, s->n_classes));
    MM_TRY(ops->normalized_logits_grad(s->stream, mem->dfeatures, mem->dlogits,
                                       features, mem->inv_norm, mem->head, n,
                                       c->embed_dim, s->n_classes));
    /* Other ranks get complete sums only. */
    mm_grad_listener listener = {range_ready, s};
    return mm_vit_backward(s->vit, mem->theta, weights, mem->grad,
                           mem->dfeatures, !first, last ? &listener : NULL);
}

/** Parts have one size, but for the last; no images are one part. */
static int64_t parts_of(const mm_stepper *s, int64_t n_images)
{
    return n_images > 0
               ? (n_images + s->sizes.part_images - 1) / s->sizes.part_images
               : 1;
}

/** This rank's share of the summed gradient. */
static mm_status compute_gradient(mm_stepper *s, const mm_batch *batch,
                                  int64_t n_images)
{
    int64_t size = s->sizes.part_images, n_bytes = s->sizes.image_bytes;
    int64_t n_parts = parts_of(s, n_images);
    mm_upload_part parts[] = {
        {.host = batch->images, .n_bytes = n_images * n_bytes},
        {.host = batch->labels, .n_bytes = n_images * (int64_t)sizeof(int32_t)},
    };
    MM_TRY(mm_upload_start(s->upload, s->stream, parts, 2));
    /* The rest of the step before keeps the device busy meanwhile. */
    MM_TRY(mm_reducer_wait(s->reducer));
    for (int64_t i = 0, at = 0; i < n_parts; i++, at += size) {
        mm_batch part = {
            .n_images = n_images - at < size ? n_images - at : size,
            .n_global = batch->n_global,
            .images = (const uint8_t *)parts[0].device + at * n_bytes,
            .labels = (const int32_t *)parts[1].device + at,
        };
        MM_TRY(compute_part(s, &part, &s->memory.outcome[1 + i], i == 0,
                            i == n_parts - 1));
    }
    MM_TRY(mm_upload_used(s->upload, s->stream));
    return mm_reducer_finish(s->reducer);
}

/** Clip, update, and copy the step's outcome to the host. The factor is
 * computed on the device: the host does not wait for the norm. */
static mm_status update(mm_stepper *s, const mm_batch *batch, double lr)
{
    const mm_step_memory *mem = &s->memory;
    double step = (double)++s->n_done;
    int64_t n = s->sizes.n_params;
    mm_adamw adamw = {
        .lr = (float)lr,
        .beta1 = (float)beta1,
        .beta2 = (float)beta2,
        .eps = (float)adam_eps,
        .weight_decay = (float)s->plan.weight_decay,
        .bias1 = (float)(1.0 - pow(beta1, step)),
        .bias2 = (float)(1.0 - pow(beta2, step)),
        .clip = s->plan.clip,
        .grad_squares = mem->outcome,
    };
    s->n_global = batch->n_global;
    s->n_parts = parts_of(s, batch->n_images);
    MM_TRY(s->ops->sum_squares(s->stream, mem->outcome, mem->grad, n));
    MM_TRY(s->ops->adamw(s->stream, mem->theta, mem->m, mem->v, mem->theta_low,
                         mem->grad, &adamw, n));
    MM_TRY(
        mm_copy_to_host(s->stream, s->host_outcome, mem->outcome,
                        (1 + s->n_parts) * (int64_t)sizeof *s->host_outcome));
    return mm_event_record(s->done, s->stream);
}

/** A rank that fails where others are in the middle of summing gradients can
 * only end the job. */
static mm_status fatal(const mm_stepper *s, mm_status st)
{
    bool alone = mm_comm_n_ranks(s->plan.comm) == 1;
    return st == MM_OK || st == MM_E_COMM || alone
               ? st
               : mm_fail(MM_E_COMM, "rank %d: %s", mm_comm_rank(s->plan.comm),
                         mm_fail_message());
}

/** Wait for the step under way, whose gradient is known to be summed; this
 * rank's share of its loss. Of a step that began since nothing is waited for.
 */
static mm_status wait_for_outcome(mm_stepper *s, double *loss_sum)
{
    *loss_sum = 0;
    if (s->n_global == 0)
        return MM_OK;
    MM_TRY(mm_event_sync(s->done));
    for (int64_t i = 0; i < s->n_parts; i++)
        *loss_sum += s->host_outcome[1 + i];
    return MM_OK;
}

/** The result of the step under way, its loss summed over ranks. */
static mm_status tell(mm_stepper *s, double loss_sum, mm_step_result *last)
{
    *last = (mm_step_result){.n_images = s->n_global};
    if (s->n_global == 0)
        return MM_OK;
    last->loss = loss_sum / (double)s->n_global;
    last->grad_norm = sqrt(s->host_outcome[0]);
    s->n_global = 0;
    if (isfinite(last->loss) && isfinite(last->grad_norm))
        return MM_OK;
    /* Every rank comes here, since sums are the same everywhere. The stream has
     * the message where an op of this rank's device failed. */
    MM_TRY(mm_comm_agree(s->plan.comm, mm_stream_sync(s->stream)));
    return mm_fail(MM_E_VALUE, "the loss is %g and the gradient's norm %g",
                   last->loss, last->grad_norm);
}

static mm_status step(mm_stepper *s, const mm_batch *batch,
                      mm_status batch_status, double lr, mm_step_result *last)
{
    /* A rank whose batch failed takes part without images, and reports that
     * with the loss, so that agreeing needs no message of its own. */
    int64_t n_images = batch_status == MM_OK ? batch->n_images : 0;
    double told[2] = {0, batch_status == MM_OK ? 0 : 1};
    MM_TRY(fatal(s, compute_gradient(s, batch, n_images)));
    MM_TRY(fatal(s, mm_upload_wait(s->upload)));
    MM_TRY(fatal(s, wait_for_outcome(s, &told[0])));
    MM_TRY(mm_reducer_sum_host(s->reducer, told, 2));
    MM_TRY(tell(s, told[0], last));
    if (told[1] > 0)
        return mm_comm_agree(s->plan.comm, batch_status);
    return fatal(s, update(s, batch, lr));
}

mm_status mm_stepper_step(mm_stepper *s, const mm_batch *batch,
                          mm_status batch_status, double lr,
                          mm_step_result *last)
{
    MM_TRY(MM_CHECK_SAME(s->plan.comm, MM_SAME_REAL(lr)));
    mm_comm_begin_compute(s->plan.comm);
    mm_status st = step(s, batch, batch_status, lr, last);
    mm_comm_end_compute(s->plan.comm);
    return st;
}

static mm_status finish(mm_stepper *s, mm_step_result *last)
{
    double loss_sum;
    MM_TRY(fatal(s, mm_reducer_wait(s->reducer)));
    MM_TRY(fatal(s, wait_for_outcome(s, &loss_sum)));
    MM_TRY(mm_reducer_sum_host(s->reducer, &loss_sum, 1));
    return tell(s, loss_sum, last);
}

mm_status mm_stepper_finish(mm_stepper *s, mm_step_result *last)
{
    MM_TRY(MM_CHECK_CALL(s->plan.comm));
    mm_comm_begin_compute(s->plan.comm);
    mm_status st = finish(s, last);
    mm_comm_end_compute(s->plan.comm);
    return st;
}
