/* The image tower's tensors in one flat buffer. */
#include "src/model/params.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

/* Tokens 5, heads 2, MLP 48. */
static const char tiny[] =
    "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 8, \"patch_size\": 4,"
    " \"width\": 16, \"layers\": 2, \"head_width\": 8, \"mlp_ratio\": 3}}";

typedef struct fixture {
    mm_model_config config;
    mm_tensor_table table;
} fixture;

static void build(const char *json, fixture *f)
{
    *f = (fixture){0};
    if (mm_model_config_parse(json, "a test", &f->config) != MM_OK ||
        mm_params_table(&f->config, &f->table) != MM_OK)
        fail_msg("%s", mm_fail_message());
}

static void clear(fixture *f)
{
    mm_tensor_table_clear(&f->table);
    mm_model_config_clear(&f->config);
}

typedef struct expected {
    const char *name;
    int64_t shape[4]; /* up to the first 0 */
} expected;

static const expected before_blocks[] = {
    {"visual.class_embedding", {16}}, {"visual.positional_embedding", {5, 16}},
    {"visual.proj", {16, 8}},         {"visual.conv1.weight", {16, 3, 4, 4}},
    {"visual.ln_pre.weight", {16}},   {"visual.ln_pre.bias", {16}},
};
static const expected in_block[] = {
    {"ln_1.weight", {16}},
    {"ln_1.bias", {16}},
    {"attn.in_proj_weight", {48, 16}},
    {"attn.in_proj_bias", {48}},
    {"attn.out_proj.weight", {16, 16}},
    {"attn.out_proj.bias", {16}},
    {"ln_2.weight", {16}},
    {"ln_2.bias", {16}},
    {"mlp.c_fc.weight", {48, 16}},
    {"mlp.c_fc.bias", {48}},
    {"mlp.c_proj.weight", {16, 48}},
    {"mlp.c_proj.bias", {16}},
};
static const expected after_blocks[] = {
    {"visual.ln_post.weight", {16}},
    {"visual.ln_post.bias", {16}},
};

static void assert_tensor(const mm_tensor *tensor, const char *prefix,
                          const expected *want)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, want->name);
    assert_string_equal(tensor->name, name);
    int n_dims = 0;
    int64_t n_elems = 1;
    while (n_dims < 4 && want->shape[n_dims])
        n_elems *= want->shape[n_dims++];
    assert_int_equal(tensor->n_dims, n_dims);
    assert_memory_equal(tensor->shape, want->shape,
                        (size_t)n_dims * sizeof(int64_t));
    assert_int_equal(tensor->n_elems, n_elems);
}

static void the_table_has_open_clips_names_in_order(void **state)
{
    (void)state;
    fixture f;
    build(tiny, &f);
    assert_int_equal(f.table.n_tensors, 6 + 2 * 12 + 2);
    const mm_tensor *tensor = f.table.tensors;
    for (int i = 0; i < 6; i++)
        assert_tensor(tensor++, "", &before_blocks[i]);
    for (int i = 0; i < 12; i++)
        assert_tensor(tensor++, "visual.transformer.resblocks.0.",
                      &in_block[i]);
    for (int i = 0; i < 12; i++)
        assert_tensor(tensor++, "visual.transformer.resblocks.1.",
                      &in_block[i]);
    for (int i = 0; i < 2; i++)
        assert_tensor(tensor++, "", &after_blocks[i]);
    clear(&f);
}

static const char tiny_clip[] =
    "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 8, \"patch_size\": 4,"
    " \"width\": 16, \"layers\": 1, \"head_width\": 8},"
    " \"text_cfg\": {\"context_length\": 7, \"vocab_size\": 11, \"width\": 16,"
    " \"heads\": 2, \"layers\": 2, \"mlp_ratio\": 3}}";

static const expected text_before[] = {
    {"positional_embedding", {7, 16}},
    {"text_projection", {16, 8}},
    {"logit_scale", {0}},
};
static const expected text_after[] = {
    {"token_embedding.weight", {11, 16}},
    {"ln_final.weight", {16}},
    {"ln_final.bias", {16}},
};

/** As fixture, of the text tower. */
static void build_text(fixture *f)
{
    *f = (fixture){0};
    if (mm_model_config_parse(tiny_clip, "a test", &f->config) != MM_OK ||
        mm_params_text_table(&f->config, &f->table) != MM_OK)
        fail_msg("%s", mm_fail_message());
}

/** The text tower's blocks and what follows them, from tensor `at` on. */
static void assert_text_blocks_and_end(const fixture *f, int at)
{
    for (int layer = 0; layer < 2; layer++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "transformer.resblocks.%d.", layer);
        for (int i = 0; i < 12; i++)
            assert_tensor(&f->table.tensors[at++], prefix, &in_block[i]);
    }
    for (int i = 0; i < 3; i++)
        assert_tensor(&f->table.tensors[at++], "", &text_after[i]);
    assert_int_equal(f->table.n_tensors, at);
}

static void the_text_table_has_open_clips_names_in_order(void **state)
{
    (void)state;
    fixture f;
    build_text(&f);
    for (int i = 0; i < 3; i++)
        assert_tensor(&f.table.tensors[i], "", &text_before[i]);
    assert_text_blocks_and_end(&f, 3);
    clear(&f);
}

static void a_whole_clip_has_the_towers_in_open_clips_order(void **state)
{
    (void)state;
    fixture f = {0};
    assert_int_equal(mm_model_config_parse(tiny_clip, "a test", &f.config),
                     MM_OK);
    assert_int_equal(mm_params_clip_table(&f.config, &f.table), MM_OK);
    for (int i = 0; i < 3; i++)
        assert_tensor(&f.table.tensors[i], "", &text_before[i]);
    int n_image = 6 + 12 + 2;
    for (int i = 3; i < f.table.n_tensors; i++)
        assert_int_equal(mm_tensor_is_visual(&f.table.tensors[i]),
                         i < 3 + n_image);
    assert_text_blocks_and_end(&f, 3 + n_image);
    clear(&f);
}

/** Counted by open_clip 2.24: model.visual.parameters(), model.parameters().
 */
static void published_models_have_their_numbers_of_weights(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t image, clip;
    } known[] = {
        {"ViT-B-32", 87849216, 151277313},
        {"ViT-B-32-quickgelu", 87849216, 151277313},
        {"ViT-B-16", 86192640, 149620737},
        {"ViT-B-16-quickgelu", 86192640, 149620737},
        {"ViT-L-14", 303966208, 427616513},
        {"ViT-L-14-quickgelu", 303966208, 427616513},
        {"ViT-L-14-336", 304293888, 427944193},
        {"ViT-L-14-336-quickgelu", 304293888, 427944193},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        fixture f = {0};
        mm_tensor_table text = {0}, clip = {0};
        assert_int_equal(mm_model_config_find(known[i].name, &f.config), MM_OK);
        assert_int_equal(mm_params_table(&f.config, &f.table), MM_OK);
        assert_int_equal(mm_params_text_table(&f.config, &text), MM_OK);
        assert_int_equal(mm_params_clip_table(&f.config, &clip), MM_OK);
        assert_int_equal(f.table.n_elems, known[i].image);
        assert_int_equal(clip.n_elems, known[i].clip);
        assert_int_equal(text.n_elems + f.table.n_elems, known[i].clip);
        mm_tensor_table_clear(&text);
        mm_tensor_table_clear(&clip);
        clear(&f);
    }
}

static void the_ranges_of_a_backward_pass_cover_the_buffer_once(void **state)
{
    (void)state;
    fixture f;
    build(tiny, &f);
    int64_t end = f.table.n_elems;
    for (int64_t layer = f.config.image.n_layers - 1; layer >= -1; layer--) {
        int64_t lo, hi;
        mm_params_range(&f.config, layer, &lo, &hi);
        assert_int_equal(hi, end);
        assert_true(lo < hi);
        end = lo;
    }
    assert_int_equal(end, 0);
    clear(&f);
}

static void a_range_begins_at_its_blocks_first_tensor(void **state)
{
    (void)state;
    fixture f;
    build(tiny, &f);
    for (int64_t layer = 0; layer < f.config.image.n_layers; layer++) {
        char name[64];
        snprintf(name, sizeof name, "visual.transformer.resblocks.%d.%s",
                 (int)layer, "ln_1.weight");
        int64_t lo, hi;
        mm_params_range(&f.config, layer, &lo, &hi);
        int first = mm_tensor_table_find(&f.table, name);
        assert_int_equal(lo, f.table.tensors[first].off_elems);
    }
    clear(&f);
}

static void assert_at(const fixture *f, const char *prefix, const char *name,
                      const float *flat, const float *pointer)
{
    char whole[128];
    snprintf(whole, sizeof whole, "%s%s", prefix, name);
    int t = mm_tensor_table_find(&f->table, whole);
    assert_true(t >= 0);
    assert_ptr_equal(pointer, flat + f->table.tensors[t].off_elems);
}

static void assert_blocks_at(const fixture *f, mm_tower tower, float *flat)
{
    for (int64_t layer = 0; layer < 2; layer++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%stransformer.resblocks.%d.",
                 tower == MM_IMAGE_TOWER ? "visual." : "", (int)layer);
        mm_block_params b = mm_params_block(&f->config, tower, layer, flat);
        const float *pointers[] = {
            b.ln_1_weight,  b.ln_1_bias,       b.in_proj_weight,
            b.in_proj_bias, b.out_proj_weight, b.out_proj_bias,
            b.ln_2_weight,  b.ln_2_bias,       b.c_fc_weight,
            b.c_fc_bias,    b.c_proj_weight,   b.c_proj_bias};
        for (int i = 0; i < 12; i++)
            assert_at(f, prefix, in_block[i].name, flat, pointers[i]);
    }
}

static void pointers_agree_with_the_table(void **state)
{
    (void)state;
    fixture f;
    build(tiny, &f);
    float *flat = calloc((size_t)f.table.n_elems, sizeof *flat);
    assert_non_null(flat);
    mm_vit_params v = mm_params_vit(&f.config, flat);
    assert_at(&f, "visual.", "class_embedding", flat, v.class_embedding);
    assert_at(&f, "visual.", "positional_embedding", flat,
              v.positional_embedding);
    assert_at(&f, "visual.", "proj", flat, v.proj);
    assert_at(&f, "visual.", "conv1.weight", flat, v.conv1_weight);
    assert_at(&f, "visual.", "ln_pre.weight", flat, v.ln_pre_weight);
    assert_at(&f, "visual.", "ln_pre.bias", flat, v.ln_pre_bias);
    assert_at(&f, "visual.", "ln_post.weight", flat, v.ln_post_weight);
    assert_at(&f, "visual.", "ln_post.bias", flat, v.ln_post_bias);
    assert_blocks_at(&f, MM_IMAGE_TOWER, flat);
    free(flat);
    clear(&f);
}

static void text_pointers_agree_with_the_table(void **state)
{
    (void)state;
    fixture f;
    build_text(&f);
    float *flat = calloc((size_t)f.table.n_elems, sizeof *flat);
    assert_non_null(flat);
    mm_text_params p = mm_params_text(&f.config, flat);
    assert_at(&f, "", "positional_embedding", flat, p.positional_embedding);
    assert_at(&f, "", "text_projection", flat, p.text_projection);
    assert_at(&f, "", "logit_scale", flat, p.logit_scale);
    assert_at(&f, "", "token_embedding.weight", flat, p.token_embedding);
    assert_at(&f, "", "ln_final.weight", flat, p.ln_final_weight);
    assert_at(&f, "", "ln_final.bias", flat, p.ln_final_bias);
    assert_blocks_at(&f, MM_TEXT_TOWER, flat);
    free(flat);
    clear(&f);
}

static float *made(const fixture *f, uint64_t seed)
{
    float *theta = malloc((size_t)f->table.n_elems * sizeof *theta);
    assert_non_null(theta);
    memset(theta, 0xFF, (size_t)f->table.n_elems * sizeof *theta);
    mm_params_randomize(&f->config, &f->table, seed, theta);
    return theta;
}

static void random_weights_are_a_function_of_the_seed(void **state)
{
    (void)state;
    fixture f;
    build(tiny, &f);
    size_t n_bytes = (size_t)f.table.n_elems * sizeof(float);
    float *a = made(&f, 5), *b = made(&f, 5), *c = made(&f, 6);
    assert_memory_equal(a, b, n_bytes);
    assert_memory_not_equal(a, c, n_bytes);
    free(a);
    free(b);
    free(c);
    clear(&f);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void layer_norms_begin_as_one_and_biases_as_zero(void **state)
{
    (void)state;
    fixture f;
    build(tiny, &f);
    float *theta = made(&f, 1);
    int n_gains = 0, n_biases = 0;
    for (int t = 0; t < f.table.n_tensors; t++) {
        const mm_tensor *tensor = &f.table.tensors[t];
        bool gain =
            strstr(tensor->name, "ln_") && ends_with(tensor->name, "weight");
        bool bias = ends_with(tensor->name, "bias");
        n_gains += gain;
        n_biases += bias;
        for (int64_t i = 0; i < tensor->n_elems; i++) {
            float x = theta[tensor->off_elems + i];
            if (gain || bias)
                assert_true(x == (gain ? 1.0f : 0.0f));
            else
                assert_true(isfinite(x) && x != 0);
        }
    }
    assert_int_equal(n_gains, 2 + 2 * 2);
    assert_int_equal(n_biases, 2 + 2 * 6);
    free(theta);
    clear(&f);
}

static void assert_deviation(const fixture *f, const float *theta,
                             const char *name, double deviation)
{
    int t = mm_tensor_table_find(&f->table, name);
    assert_true(t >= 0);
    const mm_tensor *tensor = &f->table.tensors[t];
    double squares = 0, n = (double)tensor->n_elems;
    for (int64_t i = 0; i < tensor->n_elems; i++) {
        double x = theta[tensor->off_elems + i];
        squares += x * x;
    }
    /* Four standard errors of a deviation estimated from n draws. */
    double ratio = sqrt(squares / n) / deviation;
    assert_true(fabs(ratio - 1) < 4 / sqrt(2 * n));
}

static void weights_spread_as_in_open_clip(void **state)
{
    (void)state;
    fixture f;
    build("{\"embed_dim\": 64, \"vision_cfg\": {\"image_size\": 32,"
          " \"patch_size\": 8, \"width\": 64, \"layers\": 8}}",
          &f);
    float *theta = made(&f, 2);
    /* width 64: 1/8; residual branches of 8 layers: 1/8 / 4. */
    static const struct {
        const char *name;
        double deviation;
    } known[] = {
        {"visual.positional_embedding", 0.125},
        {"visual.proj", 0.125},
        {"visual.conv1.weight", 0.07216878364870323},
        {"visual.transformer.resblocks.7.attn.in_proj_weight", 0.125},
        {"visual.transformer.resblocks.7.attn.out_proj.weight", 0.03125},
        {"visual.transformer.resblocks.7.mlp.c_fc.weight", 0.08838834764831845},
        {"visual.transformer.resblocks.7.mlp.c_proj.weight", 0.03125},
    };
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        assert_deviation(&f, theta, known[k].name, known[k].deviation);
    free(theta);
    clear(&f);
}

static void the_text_tower_spreads_as_in_open_clip(void **state)
{
    (void)state;
    fixture f = {0};
    assert_int_equal(
        mm_model_config_parse(
            "{\"embed_dim\": 64, \"vision_cfg\": {\"image_size\": 32,"
            " \"patch_size\": 8, \"width\": 64, \"layers\": 1}, \"text_cfg\":"
            " {\"width\": 64, \"layers\": 8, \"vocab_size\": 300}}",
            "a test", &f.config),
        MM_OK);
    assert_int_equal(mm_params_text_table(&f.config, &f.table), MM_OK);
    float *theta = made(&f, 2);
    assert_deviation(&f, theta, "positional_embedding", 0.01);
    assert_deviation(&f, theta, "text_projection", 0.125);
    assert_deviation(&f, theta, "token_embedding.weight", 0.02);
    assert_deviation(&f, theta, "transformer.resblocks.7.attn.in_proj_weight",
                     0.125);
    assert_deviation(&f, theta, "transformer.resblocks.7.mlp.c_proj.weight",
                     0.03125);
    float scale = *mm_params_text(&f.config, theta).logit_scale;
    assert_true(fabs(exp(scale) * 0.07 - 1) < 1e-6);
    free(theta);
    clear(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_has_open_clips_names_in_order),
        cmocka_unit_test(the_text_table_has_open_clips_names_in_order),
        cmocka_unit_test(a_whole_clip_has_the_towers_in_open_clips_order),
        cmocka_unit_test(published_models_have_their_numbers_of_weights),
        cmocka_unit_test(the_ranges_of_a_backward_pass_cover_the_buffer_once),
        cmocka_unit_test(a_range_begins_at_its_blocks_first_tensor),
        cmocka_unit_test(pointers_agree_with_the_table),
        cmocka_unit_test(text_pointers_agree_with_the_table),
        cmocka_unit_test(random_weights_are_a_function_of_the_seed),
        cmocka_unit_test(layer_norms_begin_as_one_and_biases_as_zero),
        cmocka_unit_test(weights_spread_as_in_open_clip),
        cmocka_unit_test(the_text_tower_spreads_as_in_open_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
