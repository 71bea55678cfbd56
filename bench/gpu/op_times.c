/*
 * Times every op of a training step, and of merging, at a model's sizes:
 *
 *   op_times DEVICE MODEL BATCH [--tokens T] [--only TEXT] [--quick]
 *
 * DEVICE as mm_device_open has it (cuda:bf16, cpu, ...), MODEL a name or a JSON
 * file. Prints one JSON object per line: the op, its calls in a training step,
 * the bytes and operations that it cannot do without, and its seconds: the
 * median of samples, each as many calls one after another as take 20 ms, host
 * clock from an idle stream to an idle stream. --tokens sets the length for
 * attention; --only takes the ops whose name has TEXT in it; --quick calls each
 * op once.
 */
#include "bench/gpu/op_times.h"
#include "bench/median.h"
#include "src/base/clock.h"
#include "src/model/params.h"

#include <stdio.h>
#include <string.h>

enum { N_CLASSES = 100, N_SAMPLES = 7, RANDOM_BLOCK = 1 << 20 };

static const double sample_s = 0.02;

static void must(mm_status st)
{
    if (st != MM_OK) {
        fprintf(stderr, "op_times: %s\n", mm_fail_message());
        exit(1);
    }
}

/* ---- memory ------------------------------------------------------------- */

static void *take(op_rig *r, int64_t n_bytes)
{
    void *memory = NULL;
    must(mm_device_alloc(r->device, n_bytes, &memory));
    return memory;
}

/** `n` floats in [-scale, scale), or in [0, scale) where positive. */
static float *take_floats(op_rig *r, int64_t n, float scale, bool positive)
{
    static float block[RANDOM_BLOCK];
    uint64_t state = 1;
    for (int64_t i = 0; i < RANDOM_BLOCK; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float u = (float)((double)(state >> 40) * 0x1p-24); /* [0, 1) */
        block[i] = scale * (positive ? u : 2 * u - 1);
    }
    float *memory = take(r, n * (int64_t)sizeof *memory);
    for (int64_t at = 0; at < n; at += RANDOM_BLOCK) {
        int64_t left = n - at < RANDOM_BLOCK ? n - at : RANDOM_BLOCK;
        must(mm_copy_to_device(r->stream, memory + at, block,
                               left * (int64_t)sizeof *block));
    }
    must(mm_stream_sync(r->stream));
    return memory;
}

/** `n` activations in [-1, 1). */
static mm_act *take_acts(op_rig *r, int64_t n)
{
    float *floats = take_floats(r, n, 1, false);
    mm_act *acts = take(r, n * r->a);
    must(r->ops->float_to_act(r->stream, acts, floats, n));
    must(mm_stream_sync(r->stream));
    void *memory = floats;
    mm_device_free(r->device, &memory);
    return acts;
}

static void measure_model(op_rig *r, const char *model, int64_t batch,
                          int64_t n_tokens)
{
    mm_tensor_table table = {0};
    must(mm_model_config_find(model, &r->config));
    must(mm_params_table(&r->config, &table));
    const mm_tower_config *tower = &r->config.image;
    r->B = batch;
    r->T = n_tokens > 1 ? n_tokens : tower->n_tokens;
    r->C = tower->width;
    r->F = tower->mlp_width;
    r->H = tower->n_heads;
    r->L = tower->n_layers;
    r->E = r->config.embed_dim;
    r->K = N_CLASSES;
    r->rows = r->B * r->T;
    r->patches = r->B * (tower->n_tokens - 1);
    r->pixels = 3 * r->config.patch_size * r->config.patch_size;
    r->N = table.n_elems;
    r->a = mm_device_act_bytes(r->device);
    mm_tensor_table_clear(&table);
}

static void take_memory(op_rig *r)
{
    const int64_t x = r->rows * r->C, columns = r->patches * r->pixels;
    const int64_t wide = r->rows * r->F > columns ? r->rows * r->F : columns;
    const int64_t logits = r->B * r->K;
    int64_t scratch = 0;
    must(r->ops->scratch_bytes(&scratch, r->T, r->C, r->H));
    must(mm_stream_reserve(r->stream, scratch));
    r->x = take_acts(r, x);
    r->y = take_acts(r, x);
    r->z = take_acts(r, x);
    r->wide = take_acts(r, wide);
    r->wide2 = take_acts(r, wide);
    r->qkv = take_acts(r, 3 * x);
    r->dqkv = take_acts(r, 3 * x);
    r->weights = take_acts(r, r->N);
    r->theta_low = r->a < (int64_t)sizeof(float) ? r->weights : NULL;
    r->theta = take_floats(r, r->N, 1, false);
    r->grad = take_floats(r, r->N, 1, false);
    r->m = take_floats(r, r->N, 1, false);
    r->v = take_floats(r, r->N, 1, true);
    r->mean = take_floats(r, r->rows, 1, false);
    r->rstd = take_floats(r, r->rows, 1, true);
    r->lse = take_floats(r, r->rows * r->H, 1, false);
    r->logits = take_floats(r, logits, 1, false);
    r->dlogits = take_floats(r, logits, 1, false);
    r->features = take_floats(r, r->B * r->E, 1, false);
    r->inv_norm = take_floats(r, r->B, 1, true);
    r->sum = take(r, sizeof *r->sum);
    r->count = take(r, sizeof *r->count);
    r->winner = take(r, r->N * (int64_t)sizeof *r->winner);
    int64_t size = r->config.image_size, n_bytes = r->B * size * size * 3;
    r->images = (uint8_t *)take_floats(r, (n_bytes + 3) / 4, 1, false);
    int32_t *labels = calloc((size_t)r->B, sizeof *labels);
    r->labels = take(r, r->B * (int64_t)sizeof *labels);
    for (int64_t i = 0; i < r->B; i++)
        labels[i] = (int32_t)(i % r->K);
    must(mm_copy_to_device(r->stream, r->labels, labels,
                           r->B * (int64_t)sizeof *labels));
    must(mm_stream_sync(r->stream));
    free(labels);
}

static void release_memory(op_rig *r)
{
    void *all[] = {r->x,      r->y,       r->z,        r->wide,     r->wide2,
                   r->qkv,    r->dqkv,    r->weights,  r->theta,    r->grad,
                   r->m,      r->v,       r->mean,     r->rstd,     r->lse,
                   r->logits, r->dlogits, r->features, r->inv_norm, r->sum,
                   r->count,  r->winner,  r->images,   r->labels};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mm_device_free(r->device, &all[i]);
}

/* ---- time --------------------------------------------------------------- */

static double time_calls(const op_rig *r, const op_case *op, int n_calls)
{
    double begin_s = mm_clock_s();
    for (int i = 0; i < n_calls; i++)
        must(op->run(r));
    must(mm_stream_sync(r->stream));
    return (mm_clock_s() - begin_s) / n_calls;
}

static double time_op(const op_rig *r, const op_case *op, bool quick)
{
    double samples[N_SAMPLES];
    double once_s = time_calls(r, op, 1); /* chooses algorithms too */
    if (quick)
        return once_s;
    once_s = time_calls(r, op, 3);
    int n_calls = once_s < sample_s ? (int)(sample_s / once_s) + 1 : 1;
    for (int i = 0; i < N_SAMPLES; i++)
        samples[i] = time_calls(r, op, n_calls);
    return median(samples, N_SAMPLES);
}

int main(int argc, char **argv)
{
    op_rig r = {0};
    op_case cases[MOST_CASES];
    int64_t n_tokens = 0;
    const char *only = "";
    bool quick = false;
    for (int i = 4; i < argc; i++) {
        if (!strcmp(argv[i], "--quick"))
            quick = true;
        else if (!strcmp(argv[i], "--tokens") && i + 1 < argc)
            n_tokens = atoll(argv[++i]);
        else if (!strcmp(argv[i], "--only") && i + 1 < argc)
            only = argv[++i];
        else
            argc = 0;
    }
    if (argc < 4 || atoll(argv[3]) < 1) {
        fprintf(stderr, "usage: op_times DEVICE MODEL BATCH [--tokens T] "
                        "[--only TEXT] [--quick]\n");
        return 2;
    }
    must(mm_device_open(argv[1], 2, &r.device));
    must(mm_stream_create(r.device, &r.stream));
    r.ops = mm_device_ops(r.device);
    measure_model(&r, argv[2], atoll(argv[3]), n_tokens);
    take_memory(&r);
    int n = op_cases(&r, cases);
    for (int i = 0; i < n; i++) {
        const op_case *op = &cases[i];
        if (!strstr(op->name, only))
            continue;
        printf("{\"op\": \"%s\", \"device\": \"%s\", \"model\": \"%s\", "
               "\"batch\": %lld, \"tokens\": %lld, \"calls\": %.0f, "
               "\"bytes\": %.0f, \"flop\": %.0f, \"seconds\": %.4g}\n",
               op->name, argv[1], argv[2], (long long)r.B, (long long)r.T,
               op->calls, op->bytes, op->flop, time_op(&r, op, quick));
        fflush(stdout);
    }
    release_memory(&r);
    mm_stream_destroy(&r.stream);
    mm_device_close(&r.device);
    mm_model_config_clear(&r.config);
    return 0;
}
