/*
 * The text tower against open_clip's float64 numbers, and what its batches may
 * and may not change.
 *
 * ctest: processors=2
 */
#include "src/eval/encode_texts.h"
#include "src/model/text.h"
#include "tests/parity/golden.h"

enum { N_TEXTS = 6, N_CONTEXT = 77, EMBED = 32 };

static const char texts_file[] = "tiny/text.safetensors";
static const double bound = 1e-5;

static mm_comm *comm;

typedef struct rig {
    mm_device *device;
    mm_model model;
    int32_t tokens[N_TEXTS * N_CONTEXT];
    float *theirs; /* [N_TEXTS, EMBED] */
} rig;

static void rig_open(rig *r)
{
    memset(r, 0, sizeof *r);
    must(mm_device_open("cpu", 2, &r->device));
    must(mm_model_init_text(comm, NULL, golden_path("tiny/model.json"),
                            golden_path("tiny/clip.safetensors"), &r->model));
    read_raw(golden_path(texts_file), "tokens", r->tokens, sizeof r->tokens);
    mm_weights *file;
    must(mm_weights_open(golden_path(texts_file), &file));
    int64_t n;
    r->theirs = read_tensor(file, "features", &n);
    assert_int_equal(n, N_TEXTS * EMBED);
    mm_weights_close(&file);
}

static void rig_close(rig *r)
{
    free(r->theirs);
    mm_model_clear(&r->model);
    mm_device_close(&r->device);
}

static int64_t end_of(const int32_t *ids)
{
    int64_t end = 0;
    for (int64_t i = 1; i < N_CONTEXT; i++)
        end = ids[i] > ids[end] ? i : end;
    return end;
}

/** Features of some texts in one pass of n_tokens each; free() them. */
static float *forward(rig *r, const int32_t *tokens, int64_t n_texts,
                      int64_t n_tokens)
{
    mm_stream *stream;
    mm_text *text;
    int32_t cut[N_TEXTS * N_CONTEXT];
    int64_t ends[N_TEXTS];
    for (int64_t i = 0; i < n_texts; i++) {
        memcpy(cut + i * n_tokens, tokens + i * N_CONTEXT,
               (size_t)n_tokens * sizeof *cut);
        ends[i] = i * n_tokens + end_of(tokens + i * N_CONTEXT);
    }
    must(mm_stream_create(r->device, &stream));
    must(mm_text_create(r->device, stream, &r->model.config, n_texts * n_tokens,
                        &text));
    float *features, *copy = malloc((size_t)(n_texts * EMBED) * sizeof *copy);
    must(mm_text_forward(text, r->model.theta, (const mm_act *)r->model.theta,
                         cut, ends, n_texts, n_tokens, &features));
    must(mm_copy_to_host(stream, copy, features,
                         n_texts * EMBED * (int64_t)sizeof *copy));
    must(mm_stream_sync(stream));
    mm_text_destroy(&text);
    mm_stream_destroy(&stream);
    return copy;
}

static void features_equal_open_clips(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    float *ours = forward(&r, r.tokens, N_TEXTS, N_CONTEXT);
    assert_close("features", ours, r.theirs, N_TEXTS * EMBED, bound);
    free(ours);
    rig_close(&r);
}

static void a_text_may_be_cut_behind_its_end(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    for (int64_t i = 0; i < N_TEXTS; i++) {
        const int32_t *ids = r.tokens + i * N_CONTEXT;
        float *ours = forward(&r, ids, 1, end_of(ids) + 1);
        assert_close("features", ours, r.theirs + i * EMBED, EMBED, bound);
        free(ours);
    }
    rig_close(&r);
}

/** In a batch of one shape: not a bit. */
static void what_follows_the_end_changes_nothing(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    int32_t other[N_TEXTS * N_CONTEXT];
    memcpy(other, r.tokens, sizeof other);
    for (int64_t i = 0; i < N_TEXTS; i++)
        for (int64_t t = end_of(other + i * N_CONTEXT) + 1; t < N_CONTEXT; t++)
            other[i * N_CONTEXT + t] = (int32_t)(320 + t);
    float *a = forward(&r, r.tokens, N_TEXTS, N_CONTEXT);
    float *b = forward(&r, other, N_TEXTS, N_CONTEXT);
    assert_memory_equal(a, b, N_TEXTS * EMBED * sizeof *a);
    free(a);
    free(b);
    rig_close(&r);
}

typedef struct collected {
    float features[N_TEXTS * EMBED];
    int64_t order[N_TEXTS], n;
} collected;

static mm_status collect(void *context, int64_t i, const float *features)
{
    collected *c = context;
    memcpy(c->features + i * EMBED, features, EMBED * sizeof *features);
    c->order[c->n++] = i;
    return MM_OK;
}

static mm_status encode(const rig *r, const mm_texts *texts,
                        int64_t batch_tokens, collected *c,
                        mm_encode_texts_work *work)
{
    memset(c, 0, sizeof *c);
    mm_encode_texts_plan plan = {.comm = comm,
                                 .device = r->device,
                                 .model = &r->model,
                                 .texts = texts,
                                 .batch_tokens = batch_tokens,
                                 .take = collect,
                                 .context = c};
    return mm_encode_texts(&plan, work);
}

static void batches_of_any_size_give_the_same_features(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    mm_texts texts = {0};
    int64_t n_tokens = 0;
    for (int64_t i = 0; i < N_TEXTS; i++) {
        const int32_t *ids = r.tokens + i * N_CONTEXT;
        must(mm_texts_add(&texts, ids, N_CONTEXT));
        assert_int_equal(texts.begin[i + 1] - texts.begin[i], end_of(ids) + 1);
        n_tokens += end_of(ids) + 1;
    }
    static const int64_t sizes[] = {1, 20, 100, 4096};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        collected c;
        mm_encode_texts_work work;
        must(encode(&r, &texts, sizes[s], &c, &work));
        assert_int_equal(c.n, N_TEXTS);
        assert_close("features", c.features, r.theirs, N_TEXTS * EMBED, bound);
        assert_int_equal(work.n_tokens, n_tokens);
        assert_true(work.n_computed >= n_tokens && work.flop > 0);
        for (int64_t i = 1; i < N_TEXTS; i++) {
            int64_t a = c.order[i - 1], b = c.order[i];
            assert_true(texts.begin[a + 1] - texts.begin[a] >=
                        texts.begin[b + 1] - texts.begin[b]);
        }
        if (sizes[s] == 1) /* one text at a time: nothing is filled up */
            assert_int_equal(work.n_computed, n_tokens);
    }
    mm_texts_clear(&texts);
    rig_close(&r);
}

static void no_texts_are_no_work(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    collected c;
    mm_encode_texts_work work;
    must(encode(&r, &(mm_texts){0}, 64, &c, &work));
    assert_int_equal(c.n, 0);
    assert_int_equal(work.n_computed, 0);
    rig_close(&r);
}

static void tokens_beyond_the_vocabulary_or_context_fail(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    collected c;
    mm_texts texts = {0};
    must(mm_texts_add(&texts, (const int32_t[]){49406, 5, 49408}, 3));
    assert_int_equal(encode(&r, &texts, 64, &c, NULL), MM_E_VALUE);
    assert_non_null(strstr(mm_fail_message(), "token 49408"));
    mm_texts_clear(&texts);
    int32_t rising[N_CONTEXT + 1];
    for (int i = 0; i <= N_CONTEXT; i++)
        rising[i] = i;
    must(mm_texts_add(&texts, rising, N_CONTEXT + 1));
    assert_int_equal(encode(&r, &texts, 64, &c, NULL), MM_E_VALUE);
    assert_non_null(
        strstr(mm_fail_message(), "78 tokens, but the model takes at most 77"));
    mm_texts_clear(&texts);
    rig_close(&r);
}

static void the_end_is_the_first_of_the_largest_ids(void **state)
{
    (void)state;
    mm_texts texts = {0};
    must(mm_texts_add(&texts, (const int32_t[]){7, 1, 9, 9, 2}, 5));
    must(mm_texts_add(&texts, (const int32_t[]){9, 1}, 2));
    assert_int_equal(texts.n, 2);
    assert_int_equal(texts.begin[1], 3);
    assert_int_equal(texts.begin[2], 4);
    assert_memory_equal(texts.ids, ((const int32_t[]){7, 1, 9, 9}), 16);
    mm_texts_clear(&texts);
}

static void an_image_tower_alone_is_refused(void **state)
{
    (void)state;
    mm_model model = {0};
    assert_int_equal(mm_model_init_text(
                         comm, NULL, golden_path("tiny/model.json"),
                         golden_path("tiny/seq/task_000.safetensors"), &model),
                     MM_E_FORMAT);
    assert_non_null(
        strstr(mm_fail_message(),
               "does not contain the tensor positional_embedding: zero-shot"));
}

int main(int argc, char **argv)
{
    if (mm_comm_create(&argc, &argv, &comm) != MM_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_equal_open_clips),
        cmocka_unit_test(a_text_may_be_cut_behind_its_end),
        cmocka_unit_test(what_follows_the_end_changes_nothing),
        cmocka_unit_test(batches_of_any_size_give_the_same_features),
        cmocka_unit_test(no_texts_are_no_work),
        cmocka_unit_test(tokens_beyond_the_vocabulary_or_context_fail),
        cmocka_unit_test(the_end_is_the_first_of_the_largest_ids),
        cmocka_unit_test(an_image_tower_alone_is_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mm_comm_destroy(&comm);
    return failed;
}
