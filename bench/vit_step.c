/*
 * Times training steps and forward passes of the image tower on random weights
 * and images.
 *
 *   [mpirun -np N] vit_step MODEL BATCH REPEATS [train|forward|both [DEVICE]]
 *
 * On a CPU each of REPEATS steps is timed by itself, against the machine's rate
 * of fused multiply-adds, which is measured after every one of them: on a
 * shared machine it changes. A device with memory of its own gets blocks of ten
 * steps (one block, where there are fewer) as training gives them to it: images
 * in pinned memory, and the host one step ahead until the block ends. The
 * first step, or block, is not counted.
 *
 * Prints one JSON object: medians in images/s, the fraction of peak (counting
 * every token in every block, three times a forward pass for training), the
 * last step's loss, a hash of the weights' bytes after it, to compare runs by,
 * and the peak memory of the process. BATCH is over all ranks. DEVICE as
 * mm_device_open has it (default: cpu); a GPU's peak is not measured here and
 * its part is 0.
 */
#include "bench/median.h"
#include "bench/peak.h"
#include "kernels/ops.h"
#include "src/base/clock.h"
#include "src/base/fnv.h"
#include "src/model/model.h"
#include "src/model/params.h"
#include "src/model/vit.h"
#include "src/train/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { N_CLASSES = 100, BLOCK_STEPS = 10 };

static void must(mm_status st)
{
    if (st != MM_OK) {
        fprintf(stderr, "vit_step: %s\n", mm_fail_message());
        exit(1);
    }
}

/** Random images, labels and head: what the numbers are does not matter. */
typedef struct inputs {
    mm_batch batch;
    mm_head head;
    mm_task task;
    void *images, *labels; /* where copies to the device need no stop */
    int64_t n_bytes;       /* of images */
} inputs;

static void make_inputs(inputs *in, mm_device *device,
                        const mm_model_config *config, int64_t n_images,
                        int64_t n_global)
{
    in->n_bytes = n_images * config->image_size * config->image_size * 3;
    must(mm_host_alloc(device, in->n_bytes, &in->images));
    must(mm_host_alloc(device, n_images * (int64_t)sizeof(int32_t),
                       &in->labels));
    uint8_t *pixels = in->images;
    int32_t *labels = in->labels;
    in->head.weight =
        malloc((size_t)(N_CLASSES * config->embed_dim) * sizeof(float));
    in->task.classes = malloc(N_CLASSES * sizeof *in->task.classes);
    for (int64_t i = 0; i < in->n_bytes; i++)
        pixels[i] = (uint8_t)(i * 2654435761u >> 13);
    for (int64_t i = 0; i < n_images; i++)
        labels[i] = (int32_t)(i % N_CLASSES);
    for (int64_t i = 0; i < N_CLASSES * config->embed_dim; i++)
        in->head.weight[i] = (float)((i * 40503u >> 3) % 201) / 100 - 1;
    for (int i = 0; i < N_CLASSES; i++)
        in->task.classes[i] = i;
    in->head.n_classes = in->task.n_classes = N_CLASSES;
    in->head.embed_dim = config->embed_dim;
    in->batch = (mm_batch){.n_images = n_images,
                           .n_global = n_global,
                           .images = pixels,
                           .labels = labels};
}

static void clear_inputs(inputs *in, mm_device *device)
{
    mm_host_free(device, &in->images);
    mm_host_free(device, &in->labels);
    free(in->head.weight);
    free(in->task.classes);
}

/** How often what is timed, and how many of it between two looks at the clock;
 * a block has but one waiting for the device, at its end. */
typedef struct rounds {
    int n_blocks, block_steps;
} rounds;

static rounds rounds_of(const mm_device *device, int repeats)
{
    if (!mm_device_has_own_memory(device))
        return (rounds){repeats, 1};
    int n_blocks = repeats < BLOCK_STEPS ? 1 : repeats / BLOCK_STEPS;
    return (rounds){n_blocks, repeats / n_blocks};
}

/** Medians over the blocks, of one step. */
typedef struct timing {
    double seconds, of_peak, waited, loss;
} timing;

/** Time per step of each block, and its part of the rate possible at that
 * time. */
typedef struct samples {
    double *seconds, *of_peak;
    int n;
} samples;

static samples samples_of(int n)
{
    samples s = {calloc((size_t)n, sizeof(double)),
                 calloc((size_t)n, sizeof(double)), 0};
    return s;
}

static void add_sample(samples *s, double seconds, double flop, mm_comm *comm,
                       const mm_device *device)
{
    s->seconds[s->n] = seconds;
    if (!mm_device_has_own_memory(device))
        s->of_peak[s->n] = flop / seconds /
                           (peak_gflops(mm_comm_n_threads(comm), 3) * 1e9 *
                            mm_comm_n_ranks(comm));
    s->n++;
}

static timing finish_samples(samples *s)
{
    timing t = {.seconds = median(s->seconds, s->n),
                .of_peak = median(s->of_peak, s->n)};
    free(s->seconds);
    free(s->of_peak);
    return t;
}

/** Seconds of a block of steps; its last one's loss. */
static double time_block(mm_stepper *stepper, mm_comm *comm,
                         const mm_batch *batch, int n_steps, double *loss)
{
    mm_step_result last;
    must(mm_comm_barrier(comm));
    double begin_s = mm_clock_s();
    for (int i = 0; i < n_steps; i++)
        must(mm_stepper_step(stepper, batch, MM_OK, 1e-6, &last));
    must(mm_stepper_finish(stepper, &last));
    *loss = last.loss;
    return mm_clock_s() - begin_s;
}

/** model->theta is what the steps leave. */
static timing time_training(const mm_step_plan *plan, const mm_model *model,
                            const inputs *in, rounds r, double flop)
{
    mm_stepper *stepper = NULL;
    samples all = samples_of(r.n_blocks);
    double loss = 0, before_s = 0, total_s = 0;
    must(mm_stepper_create(plan, &stepper));
    must(mm_stepper_start_task(stepper, model->theta, &in->head, &in->task));
    (void)time_block(stepper, plan->comm, &in->batch, r.block_steps, &loss);
    before_s = mm_stepper_wait_s(stepper);
    for (int i = 0; i < r.n_blocks; i++) {
        double spent_s =
            time_block(stepper, plan->comm, &in->batch, r.block_steps, &loss);
        total_s += spent_s;
        add_sample(&all, spent_s / r.block_steps, flop, plan->comm,
                   plan->device);
    }
    must(mm_stepper_read(stepper, model->theta));
    timing t = finish_samples(&all);
    t.waited = (mm_stepper_wait_s(stepper) - before_s) / total_s;
    t.loss = loss;
    mm_stepper_destroy(&stepper);
    return t;
}

/** Device memory with a copy of `host`, or undefined where it is NULL. */
static void *put(mm_device *device, mm_stream *stream, const void *host,
                 int64_t n_bytes)
{
    void *memory = NULL;
    must(mm_device_alloc(device, n_bytes, &memory));
    if (host)
        must(mm_copy_to_device(stream, memory, host, n_bytes));
    must(mm_stream_sync(stream));
    return memory;
}

static timing time_forward(mm_comm *comm, mm_device *device,
                           const mm_model *model, const inputs *in, rounds r,
                           double flop)
{
    mm_stream *stream = NULL;
    mm_vit *vit = NULL;
    samples all = samples_of(r.n_blocks);
    const int64_t n = model->table.n_elems, a = mm_device_act_bytes(device);
    must(mm_stream_create(device, &stream));
    must(mm_vit_create(device, stream, &model->config, MM_VIT_INFERENCE,
                       in->batch.n_images, &vit));
    void *theta = put(device, stream, model->theta, n * (int64_t)sizeof(float));
    void *weights = put(device, stream, NULL, n * a);
    void *images = put(device, stream, in->images, in->n_bytes);
    must(mm_device_ops(device)->float_to_act(stream, weights, theta, n));
    for (int i = -1; i < r.n_blocks; i++) { /* the first warms up */
        float *features;
        must(mm_comm_barrier(comm));
        double begin_s = mm_clock_s();
        for (int k = 0; k < r.block_steps; k++)
            must(mm_vit_forward(vit, theta, weights, images, in->batch.n_images,
                                &features));
        must(mm_stream_sync(stream));
        double step_s = (mm_clock_s() - begin_s) / r.block_steps;
        if (i >= 0)
            add_sample(&all, step_s, flop, comm, device);
    }
    mm_device_free(device, &theta);
    mm_device_free(device, &weights);
    mm_device_free(device, &images);
    mm_vit_destroy(&vit);
    mm_stream_destroy(&stream);
    return finish_samples(&all);
}

static void print_report(const char *name, mm_comm *comm,
                         const mm_device *device, const mm_model *model,
                         double batch, timing train, timing forward)
{
    const double flop = mm_vit_forward_flop(&model->config);
    const uint64_t fnv =
        mm_fnv(MM_FNV_BEGIN, model->theta,
               model->table.n_elems * (int64_t)sizeof *model->theta);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"model\": \"%s\", \"batch\": %.0f, \"n_ranks\": %d, "
           "\"n_threads\": %d, \"n_params\": %lld, "
           "\"device\": \"%s\", "
           "\"train_images_per_s\": %.4g, "
           "\"train_of_peak\": %.3f, \"train_waited\": %.4f, "
           "\"train_gflop_per_image\": %.4g, "
           "\"forward_images_per_s\": %.4g, \"forward_of_peak\": %.3f, "
           "\"loss\": %.9g, \"weights_fnv\": \"%016llx\", "
           "\"max_rss_gib\": %.2f}\n",
           name, batch, mm_comm_n_ranks(comm), mm_comm_n_threads(comm),
           (long long)model->table.n_elems, mm_device_describe(device),
           train.seconds > 0 ? batch / train.seconds : 0, train.of_peak,
           train.waited, 3e-9 * flop,
           forward.seconds > 0 ? batch / forward.seconds : 0, forward.of_peak,
           train.loss, (unsigned long long)fnv,
           (double)usage.ru_maxrss / (1 << 20));
}

int main(int argc, char **argv)
{
    mm_comm *comm = NULL;
    must(mm_comm_create(&argc, &argv, &comm));
    if (argc < 4 || atoi(argv[3]) < 1) {
        fprintf(stderr, "usage: vit_step MODEL BATCH REPEATS "
                        "[train|forward|both [DEVICE]]\n");
        mm_comm_destroy(&comm);
        return 2;
    }
    int64_t batch = atoll(argv[2]);
    int repeats = atoi(argv[3]);
    const char *what = argc > 4 ? argv[4] : "both";
    int rank = mm_comm_rank(comm), n_ranks = mm_comm_n_ranks(comm);
    int n_threads = mm_comm_n_threads(comm);
    int64_t n_images = batch / n_ranks + (rank < batch % n_ranks);

    mm_model model = {0};
    must(mm_model_init(comm, NULL, argv[1], NULL, 1, &model));
    mm_device *device = NULL;
    must(mm_device_open(argc > 5 ? argv[5] : "cpu", n_threads, &device));
    inputs in = {0};
    make_inputs(&in, device, &model.config, n_images, batch);
    mm_step_plan plan = {.comm = comm,
                         .device = device,
                         .config = &model.config,
                         .most_images = n_images,
                         .most_classes = N_CLASSES,
                         .accumulate = 1,
                         .weight_decay = 0.1,
                         .clip = 1};

    double flop = mm_vit_forward_flop(&model.config) * (double)batch;
    const rounds r = rounds_of(device, repeats);
    timing train = {0}, forward = {0};
    if (strcmp(what, "forward") != 0)
        train = time_training(&plan, &model, &in, r, 3 * flop);
    if (strcmp(what, "train") != 0)
        forward = time_forward(comm, device, &model, &in, r, flop);
    if (rank == 0)
        print_report(argv[1], comm, device, &model, (double)batch, train,
                     forward);
    clear_inputs(&in, device);
    mm_device_close(&device);
    mm_model_clear(&model);
    mm_comm_destroy(&comm);
    return 0;
}
