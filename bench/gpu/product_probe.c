/*
 * Times cuBLASLt's algorithms for the products of training steps in bf16,
 * described as kernels/cuda/product.c describes them:
 *
 *   product_probe [--quick] [--seconds S] [--table FILE] [MODEL BATCH]...
 *
 * Default: ViT-B-16 128 ViT-B-32 128 ViT-L-14 64. For each product and epilogue
 * the first eight offers of the library's heuristic, with a workspace of 32 MiB
 * and of 128, a JSON object each: its rank, its algorithm (attributes in the
 * order of cublasLtMatmulAlgoConfigAttributes_t), the median of samples on
 * random numbers by the host's clock, and whether it gave the same bits twice
 * (of the first 16 MiB). An algorithm that is offered more than once is timed
 * once. The products that take most of a step come first; after S seconds (20)
 * the rest are left out.
 *
 * --table writes what kernels/cuda/product_table.h reads: of each product that
 * was timed to the end the fastest algorithm that repeats its bits, where it is
 * at least 2 % faster than the first offer. Without an epilogue that a case may
 * have, or with one, is a product of its own. --quick calls each once.
 *
 * To build a table in: product_probe --table kernels/cuda/product_table.inc
 */
#include "bench/gpu/product_probe.h"
#include "bench/median.h"
#include "src/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_SAMPLES = 3,
    MOST_MODELS = 8,
    N_WORKSPACES = 2,
    RANDOM_ELEMS = 1 << 20
};

static const int64_t workspace_mib[N_WORKSPACES] = {32, 128};
static const size_t compared_bytes = (size_t)16 << 20;
static const double sample_s = 0.003, least_gain = 0.02;

typedef struct probe {
    cublasLtHandle_t handle;
    cudaStream_t stream;
    void *a, *b, *c, *addend, *bias, *sums, *workspace;
    void *first, *second; /* pinned, [compared_bytes] */
    size_t room_bytes;
    double end_s;
    bool quick;
    FILE *table;
} probe;

/** An algorithm that has been timed. */
typedef struct timed {
    mm_product_fingerprint algorithm;
    size_t workspace_bytes;
    int64_t workspace_mib, rank; /* where it was offered first */
    double seconds;
    bool repeats;
} timed;

#define CUDA(call) check((int)(call), #call, __LINE__)

static void check(int status, const char *call, int line)
{
    if (status == 0)
        return;
    fprintf(stderr, "product_probe: %.*s: status %d (line %d)\n",
            (int)strcspn(call, "("), call, status, line);
    exit(1);
}

/* ---- memory ------------------------------------------------------------- */

/** bf16 numbers in [-1, 1): of zeros, products run faster. */
static void *take_random(const probe *r, int64_t n_elems)
{
    static uint16_t block[RANDOM_ELEMS];
    const size_t n_bytes = (size_t)n_elems * sizeof *block;
    uint64_t state = 7;
    char *memory;
    CUDA(cudaMalloc((void **)&memory, n_bytes));
    for (int i = 0; i < RANDOM_ELEMS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const float value = (float)((double)(state >> 40) * 0x1p-23 - 1);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        block[i] = (uint16_t)(bits >> 16);
    }
    for (size_t at = 0; at < n_bytes; at += sizeof block)
        CUDA(cudaMemcpyAsync(memory + at, block,
                             n_bytes - at < sizeof block ? n_bytes - at
                                                         : sizeof block,
                             cudaMemcpyHostToDevice, r->stream));
    CUDA(cudaStreamSynchronize(r->stream));
    return memory;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void take_memory(probe *r, const probe_case cases[], int n)
{
    int64_t a = 0, b = 0, c = 0, vector = 0;
    for (int i = 0; i < n; i++) {
        const mm_cuda_product *p = &cases[i].product;
        a = larger(a, p->m * p->k);
        b = larger(b, p->k * p->n);
        /* In bf16 numbers, of which an fp32 one takes two. */
        c = larger(c, p->m * p->n * (p->out == CUDA_R_32F ? 2 : 1));
        vector = larger(vector, 2 * larger(p->m, p->n));
    }
    r->a = take_random(r, a);
    r->b = take_random(r, b);
    r->c = take_random(r, c);
    r->addend = take_random(r, c);
    r->bias = take_random(r, vector);
    r->sums = take_random(r, vector);
    r->room_bytes = (size_t)workspace_mib[N_WORKSPACES - 1] << 20;
    CUDA(cudaMalloc(&r->workspace, r->room_bytes));
    CUDA(cudaHostAlloc(&r->first, compared_bytes, 0));
    CUDA(cudaHostAlloc(&r->second, compared_bytes, 0));
}

static void release_memory(probe *r)
{
    void *const on_device[] = {r->a,    r->b,    r->c,        r->addend,
                               r->bias, r->sums, r->workspace};
    for (size_t i = 0; i < sizeof on_device / sizeof *on_device; i++)
        CUDA(cudaFree(on_device[i]));
    CUDA(cudaFreeHost(r->first));
    CUDA(cudaFreeHost(r->second));
}

/* ---- measuring ---------------------------------------------------------- */

static bool enqueue(const probe *r, mm_product_plan *plan,
                    const mm_cuda_product *p)
{
    return mm_product_enqueue(r->handle, plan, p, r->workspace, r->room_bytes,
                              r->stream);
}

static double time_calls(const probe *r, mm_product_plan *plan,
                         const mm_cuda_product *p, int n_calls)
{
    const double begin_s = mm_clock_s();
    for (int i = 0; i < n_calls; i++)
        (void)enqueue(r, plan, p);
    CUDA(cudaStreamSynchronize(r->stream));
    return (mm_clock_s() - begin_s) / n_calls;
}

static bool repeats(const probe *r, mm_product_plan *plan,
                    const mm_cuda_product *p)
{
    size_t n_bytes = (size_t)(p->m * p->n) * (p->out == CUDA_R_32F ? 4 : 2);
    n_bytes = n_bytes < compared_bytes ? n_bytes : compared_bytes;
    for (int i = 0; i < 2; i++) {
        (void)enqueue(r, plan, p);
        CUDA(cudaMemcpyAsync(i ? r->second : r->first, r->c, n_bytes,
                             cudaMemcpyDeviceToHost, r->stream));
        CUDA(cudaStreamSynchronize(r->stream));
    }
    return !memcmp(r->first, r->second, n_bytes);
}

/** False where the library refuses to run it. */
static bool measure(const probe *r, mm_product_plan *plan,
                    const mm_cuda_product *p, timed *t)
{
    double samples[N_SAMPLES];
    const int n_samples = r->quick ? 1 : N_SAMPLES;
    if (!enqueue(r, plan, p)) {
        (void)cudaGetLastError();
        return false;
    }
    t->repeats = repeats(r, plan, p);
    const double once_s = time_calls(r, plan, p, 1);
    const int n_calls =
        r->quick || once_s > sample_s ? 1 : (int)(sample_s / once_s) + 1;
    for (int i = 0; i < n_samples; i++)
        samples[i] = time_calls(r, plan, p, n_calls);
    t->seconds = median(samples, n_samples);
    return true;
}

/* ---- output ------------------------------------------------------------- */

static void print_case(const probe_case *c, int64_t mib)
{
    const mm_cuda_product *p = &c->product;
    const char *epilogue = c->epilogue == CUBLASLT_EPILOGUE_BIAS     ? "BIAS"
                           : c->epilogue == CUBLASLT_EPILOGUE_BGRADB ? "BGRADB"
                                                                     : "none";
    printf("{\"product\": \"%s\", \"pass\": \"%s\", \"model\": \"%s\", "
           "\"batch\": %lld, \"m\": %lld, \"n\": %lld, \"k\": %lld, "
           "\"calls\": %lld, \"epilogue\": \"%s\", \"addend\": %s, "
           "\"in_use\": %s, \"workspace_mib\": %lld, ",
           c->layer, c->pass, c->model, (long long)c->batch, (long long)p->m,
           (long long)p->n, (long long)p->k, (long long)c->calls, epilogue,
           p->addend ? "true" : "false", c->in_use ? "true" : "false",
           (long long)mib);
}

static void print_refusal(const probe_case *c, int64_t mib,
                          const mm_product_plan *plan)
{
    print_case(c, mib);
    printf("\"refused\": \"%.*s: %s, %d\"}\n", (int)strcspn(plan->call, "("),
           plan->call, cublasLtGetStatusName(plan->status), (int)plan->status);
}

static void print_time(const probe_case *c, int64_t mib, int rank,
                       const timed *t)
{
    print_case(c, mib);
    printf("\"rank\": %d, \"algorithm\": [", rank);
    for (int i = 0; i < MM_PRODUCT_ATTRIBUTES; i++)
        printf("%s%lld", i ? ", " : "", (long long)t->algorithm.attributes[i]);
    printf("], \"workspace_bytes\": %zu, \"us\": %.4g, \"tflop_per_s\": %.4g, "
           "\"repeats\": %s}\n",
           t->workspace_bytes, 1e6 * t->seconds,
           probe_flop(c) / t->seconds * 1e-12, t->repeats ? "true" : "false");
}

/** The first of `all` is the library's first choice. */
static void write_entry(FILE *table, const mm_product_key *key,
                        const timed all[], int n)
{
    const timed *best = NULL;
    for (int i = 0; i < n; i++)
        if (all[i].repeats && (!best || all[i].seconds < best->seconds))
            best = &all[i];
    if (!best || best->seconds > (1 - least_gain) * all[0].seconds)
        return;
    fprintf(table, "{%lld, %lld, %lld, %lld, %lld, %lld, %lld, %lld, %lld, ",
            (long long)key->m, (long long)key->n, (long long)key->k,
            (long long)key->transpose_a, (long long)key->transpose_b,
            (long long)key->type, (long long)key->out, (long long)key->compute,
            (long long)key->epilogue);
    fprintf(table, "%lld, %lld, %lld", (long long)key->has_addend,
            (long long)best->workspace_mib, (long long)best->rank);
    for (int i = 0; i < MM_PRODUCT_ATTRIBUTES; i++)
        fprintf(table, ", %lld", (long long)best->algorithm.attributes[i]);
    fprintf(table, "},\n");
}

/* ---- the products ------------------------------------------------------- */

static const timed *find_timed(const timed all[], int n, const timed *like)
{
    for (int i = 0; i < n; i++)
        if (all[i].workspace_bytes == like->workspace_bytes &&
            !memcmp(&all[i].algorithm, &like->algorithm,
                    sizeof like->algorithm))
            return &all[i];
    return NULL;
}

/** The offers for one workspace. False where time is up. */
static bool probe_offers(const probe *r, const probe_case *c,
                         const mm_cuda_product *p, mm_product_plan *plan,
                         int64_t mib, timed all[], int *n_timed)
{
    cublasLtMatmulHeuristicResult_t offers[MM_PRODUCT_CHOICES];
    const int n = mm_product_offers(r->handle, plan, (size_t)mib << 20,
                                    MM_PRODUCT_CHOICES, offers);
    if (n == 0)
        print_refusal(c, mib, plan);
    for (int rank = 0; rank < n; rank++) {
        timed t = {.algorithm = mm_product_fingerprint_of(&offers[rank].algo),
                   .workspace_bytes = offers[rank].workspaceSize,
                   .workspace_mib = mib,
                   .rank = rank};
        const timed *known = find_timed(all, *n_timed, &t);
        if (mm_clock_s() > r->end_s)
            return false;
        plan->algorithm = offers[rank].algo;
        if (known)
            t = *known;
        else if (measure(r, plan, p, &t))
            all[(*n_timed)++] = t;
        else {
            print_refusal(c, mib, plan);
            continue;
        }
        print_time(c, mib, rank, &t);
    }
    return true;
}

static bool probe_product(const probe *r, const probe_case *c)
{
    timed all[N_WORKSPACES * MM_PRODUCT_CHOICES];
    int n_timed = 0;
    mm_cuda_product p = c->product;
    p.a = r->a;
    p.b = r->b;
    p.c = r->c;
    p.addend = p.addend ? r->addend : NULL;
    p.bias = p.bias ? r->bias : NULL;
    p.a_sums = p.a_sums ? r->sums : NULL;
    mm_product_plan plan = mm_product_plan_of(
        &p, mm_product_compute(p.type, MM_CUDA_BF16), c->epilogue);
    const bool described = mm_product_describe(&plan, &p);
    bool in_time = true;
    if (!described)
        print_refusal(c, 0, &plan);
    for (int i = 0; i < N_WORKSPACES && in_time && described; i++)
        in_time =
            probe_offers(r, c, &p, &plan, workspace_mib[i], all, &n_timed);
    if (in_time && n_timed > 0 && r->table)
        write_entry(r->table, &plan.key, all, n_timed);
    mm_product_plan_clear(&plan);
    fflush(stdout);
    return in_time;
}

/** What is in use first; of that, what takes most of its step. */
static int by_value(const void *a, const void *b)
{
    const probe_case *x = a, *y = b;
    const double of_x = (double)x->calls * probe_flop(x);
    const double of_y = (double)y->calls * probe_flop(y);
    if (x->in_use != y->in_use)
        return y->in_use - x->in_use;
    return (of_y > of_x) - (of_y < of_x);
}

static void probe_all(probe *r, probe_case cases[], int n)
{
    int n_done = 0;
    qsort(cases, (size_t)n, sizeof *cases, by_value);
    CUDA(cudaSetDevice(0));
    CUDA(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking));
    CUDA(cublasLtCreate(&r->handle));
    take_memory(r, cases, n);
    if (r->table)
        fprintf(r->table,
                "/* Algorithms of products, made by: product_probe --table "
                "FILE\n * m, n, k, transpose_a, transpose_b, type, out, "
                "compute, epilogue, has_addend,\n * workspace_mib, rank, "
                "attributes of the algorithm */\n");
    while (n_done < n && probe_product(r, &cases[n_done]))
        n_done++;
    printf("{\"products\": %d, \"left_out\": %d}\n", n, n - n_done);
    release_memory(r);
    CUDA(cublasLtDestroy(r->handle));
    CUDA(cudaStreamDestroy(r->stream));
}

static int usage(void)
{
    fprintf(stderr, "usage: product_probe [--quick] [--seconds S] "
                    "[--table FILE] [MODEL BATCH]...\n");
    return 2;
}

/** The products of these models and batches; 0 where a word is invalid. */
static int find_cases(const char *const words[], int n_words,
                      probe_case cases[])
{
    int n = 0;
    if (n_words % 2 || n_words > 2 * MOST_MODELS)
        return 0;
    for (int i = 0; i < n_words; i += 2) {
        mm_model_config config = {0};
        const int64_t batch = atoll(words[i + 1]);
        if (batch < 1)
            return 0;
        if (mm_model_config_find(words[i], &config) != MM_OK) {
            fprintf(stderr, "product_probe: %s\n", mm_fail_message());
            exit(1);
        }
        n += probe_cases(words[i], &config, batch, cases + n);
        mm_model_config_clear(&config);
    }
    return n;
}

int main(int argc, char **argv)
{
    static probe_case cases[MOST_MODELS * MOST_PROBE_CASES];
    static const char *const by_default[] = {"ViT-B-16", "128",      "ViT-B-32",
                                             "128",      "ViT-L-14", "64"};
    probe r = {.end_s = mm_clock_s() + 20};
    const char *path = NULL;
    int at = 1;
    for (; at < argc && !strncmp(argv[at], "--", 2); at++) {
        if (!strcmp(argv[at], "--quick"))
            r.quick = true;
        else if (!strcmp(argv[at], "--seconds") && at + 1 < argc)
            r.end_s = mm_clock_s() + atof(argv[++at]);
        else if (!strcmp(argv[at], "--table") && at + 1 < argc)
            path = argv[++at];
        else
            return usage();
    }
    const int n =
        at < argc ? find_cases((const char *const *)argv + at, argc - at, cases)
                  : find_cases(by_default, 6, cases);
    if (n == 0)
        return usage();
    if (path && !(r.table = fopen(path, "w"))) {
        fprintf(stderr, "product_probe: cannot write %s\n", path);
        return 1;
    }
    probe_all(&r, cases, n);
    return r.table && fclose(r.table) ? 1 : 0;
}
