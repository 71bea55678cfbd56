/*
 * Times a zero-shot head of ImageNet's classes and prompts on a text tower with
 * random weights, against the machine's rate of fused multiply-adds, which is
 * measured after each of some shares of the classes: on a shared machine it
 * changes.
 *
 *   zeroshot MODEL N_CLASSES N_PROMPTS BATCH_TOKENS VOCABULARY
 *   zeroshot list N_CLASSES N_PROMPTS
 *
 * Prints one JSON object: texts/s with everything in it (tokenizing too), the
 * fraction of peak of the operations that were computed, texts/s over those
 * that the peak allows where every text fills the context, tokens as texts have
 * them, as computed, and as a context of 77 would need. `list` prints the
 * classes and prompts, for others to do the same work.
 */
#include "bench/peak.h"
#include "src/base/clock.h"
#include "src/data/benchmarks.h"
#include "src/eval/zero_shot.h"
#include "src/model/text.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Enough for as many texts of each length as a large head has. */
enum { MOST_SHARES = 8, TEXTS_PER_SHARE = 2000 };

static void must(mm_status st)
{
    if (st != MM_OK) {
        fprintf(stderr, "zeroshot: %s\n", mm_fail_message());
        exit(1);
    }
}

/** The first texts of ImageNet's lists. */
typedef struct job {
    const mm_benchmark *benchmark;
    int64_t n_classes, n_prompts;
} job;

static job job_of(const char *n_classes, const char *n_prompts)
{
    job j = {NULL, atoll(n_classes), atoll(n_prompts)};
    must(mm_benchmark_find("ImageNet", &j.benchmark));
    if (j.n_classes < 1 || j.n_classes > j.benchmark->class_names.n ||
        j.n_prompts < 1 || j.n_prompts > j.benchmark->prompts.n)
        must(mm_fail(MM_E_ARG, "1 to %d classes, 1 to %d prompts",
                     j.benchmark->class_names.n, j.benchmark->prompts.n));
    return j;
}

static json_t *array_of(const char *const *texts, int64_t n)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(array, json_string(texts[i]));
    return array;
}

static int list(const job *j)
{
    json_t *root = json_pack(
        "{s:o, s:o}", "class_names",
        array_of(j->benchmark->class_names.texts, j->n_classes), "prompts",
        array_of(j->benchmark->prompts.texts, j->n_prompts));
    json_dumpf(root, stdout, 0);
    putchar('\n');
    json_decref(root);
    return 0;
}

/** What the shares came to. */
typedef struct totals {
    double seconds, flop, possible; /* possible: peak x seconds */
    int64_t n_tokens, n_computed;
} totals;

static void time_share(const mm_zero_shot_plan *all, int64_t share,
                       int64_t n_shares, int n_threads, totals *t)
{
    mm_zero_shot_plan plan = *all;
    int64_t lo = all->n_classes * share / n_shares;
    mm_head head = {0};
    mm_encode_texts_work work;
    plan.class_names += lo;
    plan.n_classes = all->n_classes * (share + 1) / n_shares - lo;
    double begin_s = mm_clock_s();
    must(mm_head_init_zero_shot(&plan, &head, &work));
    double seconds = mm_clock_s() - begin_s;
    mm_head_clear(&head);
    t->seconds += seconds;
    t->flop += work.flop;
    t->possible += seconds * peak_gflops(n_threads, 3) * 1e9;
    t->n_tokens += work.n_tokens;
    t->n_computed += work.n_computed;
}

int main(int argc, char **argv)
{
    mm_comm *comm = NULL;
    must(mm_comm_create(&argc, &argv, &comm));
    bool lists = argc == 4 && strcmp(argv[1], "list") == 0;
    if (!lists && argc != 6) {
        fprintf(stderr, "usage: zeroshot MODEL N_CLASSES N_PROMPTS "
                        "BATCH_TOKENS VOCABULARY | list N_CLASSES N_PROMPTS\n");
        return 2;
    }
    job j = job_of(argv[2], argv[3]);
    if (lists)
        return list(&j);

    int n_threads = mm_comm_n_threads(comm);
    mm_model model = {0};
    mm_device *device = NULL;
    mm_tokenizer *tokenizer = NULL;
    must(mm_model_init_text(comm, NULL, argv[1], NULL, &model));
    must(mm_device_open("cpu", n_threads, &device));
    must(mm_tokenizer_read(argv[5], model.config.vocab_size, &tokenizer));
    mm_zero_shot_plan plan = {.comm = comm,
                              .device = device,
                              .model = &model,
                              .tokenizer = tokenizer,
                              .class_names = j.benchmark->class_names.texts,
                              .n_classes = j.n_classes,
                              .prompts = j.benchmark->prompts.texts,
                              .n_prompts = j.n_prompts,
                              .batch_tokens = atoll(argv[4])};
    totals t = {0};
    int64_t n_shares = j.n_classes * j.n_prompts / TEXTS_PER_SHARE;
    n_shares = n_shares < 1             ? 1
               : n_shares > MOST_SHARES ? MOST_SHARES
                                        : n_shares;
    for (int64_t share = 0; share < n_shares; share++)
        time_share(&plan, share, n_shares, n_threads, &t);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double n_texts = (double)(j.n_classes * j.n_prompts);
    double full_flop = n_texts * mm_text_forward_flop(
                                     &model.config, model.config.text.n_tokens);
    printf("{\"model\": \"%s\", \"n_classes\": %lld, \"n_prompts\": %lld, "
           "\"batch_tokens\": %s, \"n_threads\": %d, \"seconds\": %.2f, "
           "\"texts_per_s\": %.4g, \"of_peak\": %.3f, "
           "\"of_peak_rate_of_full_context\": %.3g, \"gflop_per_s\": %.4g, "
           "\"tokens\": %lld, \"tokens_computed\": %lld, "
           "\"tokens_of_full_context\": %lld, \"max_rss_gib\": %.2f}\n",
           argv[1], (long long)j.n_classes, (long long)j.n_prompts, argv[4],
           n_threads, t.seconds, n_texts / t.seconds, t.flop / t.possible,
           full_flop / t.possible, t.flop / t.seconds * 1e-9,
           (long long)t.n_tokens, (long long)t.n_computed,
           (long long)(j.n_classes * j.n_prompts * model.config.text.n_tokens),
           (double)usage.ru_maxrss / (1 << 20));
    mm_tokenizer_destroy(&tokenizer);
    mm_device_close(&device);
    mm_model_clear(&model);
    mm_comm_destroy(&comm);
    return 0;
}
