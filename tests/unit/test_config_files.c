/* Configuration files of open_clip and Hugging Face as open_clip's JSON; what
 * is wrong in them is in tests/cli/test_convert.py. */
#include "src/model/config_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** The model that a reader's text describes. */
static mm_model_config parsed(char *model)
{
    mm_model_config config = {0};
    if (mm_model_config_parse(model, "model", &config) != MM_OK)
        fail_msg("%s: %s", mm_fail_message(), model);
    free(model);
    return config;
}

static mm_model_config huggingface(const char *text)
{
    char *model = NULL;
    if (mm_config_from_huggingface(text, "config.json", &model) != MM_OK)
        fail_msg("%s", mm_fail_message());
    return parsed(model);
}

static void huggingfaces_defaults_are_those_of_vit_b_32(void **state)
{
    (void)state;
    mm_model_config c = huggingface("{}");
    mm_model_config expected = {0};
    assert_int_equal(mm_model_config_find("ViT-B-32-quickgelu", &expected),
                     MM_OK);
    char *a = NULL, *b = NULL;
    assert_int_equal(mm_model_config_write(&c, &a), MM_OK);
    assert_int_equal(mm_model_config_write(&expected, &b), MM_OK);
    assert_string_equal(a, b);
    free(a);
    free(b);
    mm_model_config_clear(&c);
    mm_model_config_clear(&expected);
}

static void huggingfaces_sizes_are_taken(void **state)
{
    (void)state;
    mm_model_config c = huggingface(
        "{\"projection_dim\": 768, \"transformers_version\": null,"
        " \"vision_config\": {\"hidden_size\": 1024, \"image_size\": 336,"
        " \"intermediate_size\": 4096, \"num_attention_heads\": 16,"
        " \"num_hidden_layers\": 24, \"patch_size\": 14, \"bos\": [1],"
        " \"hidden_act\": \"gelu\"},"
        " \"text_config\": {\"hidden_size\": 768, \"hidden_act\": \"gelu\","
        " \"intermediate_size\": 3072, \"num_attention_heads\": 12}}");
    mm_model_config expected = {0};
    assert_int_equal(mm_model_config_find("ViT-L-14-336", &expected), MM_OK);
    assert_int_equal(c.image.n_tokens, expected.image.n_tokens);
    assert_int_equal(c.image.n_heads, 16);
    assert_int_equal(c.image.activation, MM_GELU);
    assert_int_equal(c.text.n_heads, 12);
    assert_int_equal(c.text.n_layers, 12);
    assert_int_equal(c.embed_dim, 768);
    mm_model_config_clear(&c);
    mm_model_config_clear(&expected);
}

static void the_older_sections_have_the_last_word(void **state)
{
    (void)state;
    mm_model_config c =
        huggingface("{\"vision_config\": {\"patch_size\": 14},"
                    " \"vision_config_dict\": {\"patch_size\": 16},"
                    " \"text_config\": {\"num_hidden_layers\": 3},"
                    " \"text_config_dict\": null}");
    assert_int_equal(c.patch_size, 16);
    assert_int_equal(c.text.n_layers, 3);
    mm_model_config_clear(&c);
}

static void an_image_tower_alone_has_no_sections(void **state)
{
    (void)state;
    mm_model_config c = huggingface("{\"model_type\": \"clip_vision_model\","
                                    " \"patch_size\": 16,"
                                    " \"projection_dim\": 256}");
    assert_int_equal(c.patch_size, 16);
    assert_int_equal(c.embed_dim, 256);
    assert_false(c.has_text);
    mm_model_config_clear(&c);
}

/* The ratio of 123 to 48, as of many others, times 48 is less than 123. */
static void any_width_of_an_mlp_comes_back(void **state)
{
    (void)state;
    for (int64_t width = 1; width < 200; width += 7)
        for (int64_t mlp = 1; mlp < 300; mlp += 11) {
            mm_model_config c = {.embed_dim = 1,
                                 .image_size = 8,
                                 .patch_size = 8,
                                 .image = {.width = width,
                                           .n_layers = 1,
                                           .n_heads = 1,
                                           .mlp_width = mlp}};
            char *model = NULL;
            assert_int_equal(mm_model_config_write(&c, &model), MM_OK);
            c = parsed(model);
            assert_int_equal(c.image.mlp_width, mlp);
            mm_model_config_clear(&c);
        }
}

static void preprocessing_is_compared_with_clips(void **state)
{
    (void)state;
    static const struct {
        const char *preprocess;
        bool other;
    } files[] = {
        {"{}", false},
        {"{\"mean\": [0.48145466, 0.4578275, 0.40821073],"
         " \"std\": [0.26862954, 0.26130258, 0.27577711]}",
         false},
        {"{\"mean\": [0.5, 0.5, 0.5]}", true},
        {"{\"std\": [0.26862954, 0.26130258]}", true},
        {"{\"mean\": [0.48145466, 0.4578275, 0.40821073, 0]}", true},
        {"{\"std\": \"imagenet\"}", true},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char text[512], *model = NULL;
        bool other = !files[i].other;
        snprintf(text, sizeof text,
                 "{\"model_cfg\": {\"embed_dim\": 1}, \"preprocess_cfg\": %s}",
                 files[i].preprocess);
        assert_int_equal(mm_config_from_open_clip(text, "x", &model, &other),
                         MM_OK);
        assert_string_equal(model, "{\"embed_dim\": 1}");
        assert_int_equal(other, files[i].other);
        free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(huggingfaces_defaults_are_those_of_vit_b_32),
        cmocka_unit_test(huggingfaces_sizes_are_taken),
        cmocka_unit_test(the_older_sections_have_the_last_word),
        cmocka_unit_test(an_image_tower_alone_has_no_sections),
        cmocka_unit_test(any_width_of_an_mlp_comes_back),
        cmocka_unit_test(preprocessing_is_compared_with_clips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
