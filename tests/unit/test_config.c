/* Model configurations: built-in ones, open_clip's JSON, and which is meant. */
#include "src/model/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#define TINY_VISION \
    "\"image_size\": 28, \"patch_size\": 7, \"width\": 48, \"layers\": 3"

static const char tiny[] = "{\"embed_dim\": 8, \"vision_cfg\": {" TINY_VISION
                           ", \"head_width\": 16, \"mlp_ratio\": 2.57}}";

static void assert_says(const char *fragment)
{
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
}

static void find(const char *name, mm_model_config *config)
{
    if (mm_model_config_find(name, config) != MM_OK)
        fail_msg("%s", mm_fail_message());
}

static void assert_refused(const char *text, mm_status status,
                           const char *fragment)
{
    mm_model_config config = {0};
    assert_int_equal(mm_model_config_parse(text, "x.json", &config), status);
    assert_says("x.json: ");
    assert_says(fragment);
    assert_null(config.json);
}

static void built_in_models_have_their_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int embed_dim, image_size, patch_size, width, layers, heads, tokens;
    } known[] = {
        {"ViT-B-32", 512, 224, 32, 768, 12, 12, 50},
        {"ViT-B-16", 512, 224, 16, 768, 12, 12, 197},
        {"ViT-L-14", 768, 224, 14, 1024, 24, 16, 257},
        {"ViT-L-14-336", 768, 336, 14, 1024, 24, 16, 577},
    };
    for (int i = 0; i < 4; i++) {
        mm_model_config c = {0};
        find(known[i].name, &c);
        assert_int_equal(c.embed_dim, known[i].embed_dim);
        assert_int_equal(c.image_size, known[i].image_size);
        assert_int_equal(c.patch_size, known[i].patch_size);
        assert_int_equal(c.image.width, known[i].width);
        assert_int_equal(c.image.n_layers, known[i].layers);
        assert_int_equal(c.image.n_heads, known[i].heads);
        assert_int_equal(c.image.n_tokens, known[i].tokens);
        assert_int_equal(c.image.mlp_width, 4 * known[i].width);
        assert_int_equal(c.image.activation, MM_GELU);
        mm_model_config_clear(&c);
        assert_null(c.json);
    }
}

static void quickgelu_twins_differ_in_the_activation_alone(void **state)
{
    (void)state;
    const char *const names[] = {"ViT-B-32", "ViT-B-16", "ViT-L-14",
                                 "ViT-L-14-336"};
    for (int i = 0; i < 4; i++) {
        char twin[64];
        snprintf(twin, sizeof twin, "%s-quickgelu", names[i]);
        mm_model_config a = {0}, b = {0};
        find(names[i], &a);
        find(twin, &b);
        assert_int_equal(b.image.activation, MM_QUICK_GELU);
        assert_int_equal(a.image.n_tokens, b.image.n_tokens);
        assert_int_equal(a.image.width, b.image.width);
        assert_int_equal(a.image.n_layers, b.image.n_layers);
        assert_int_equal(a.embed_dim, b.embed_dim);
        mm_model_config_clear(&a);
        mm_model_config_clear(&b);
    }
}

static void built_in_text_towers_have_their_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int width, heads;
    } known[] = {{"ViT-B-32", 512, 8},
                 {"ViT-B-16-quickgelu", 512, 8},
                 {"ViT-L-14", 768, 12},
                 {"ViT-L-14-336-quickgelu", 768, 12}};
    for (int i = 0; i < 4; i++) {
        mm_model_config c = {0};
        find(known[i].name, &c);
        assert_true(c.has_text);
        assert_int_equal(c.vocab_size, 49408);
        assert_int_equal(c.text.n_tokens, 77);
        assert_int_equal(c.text.width, known[i].width);
        assert_int_equal(c.text.n_heads, known[i].heads);
        assert_int_equal(c.text.n_layers, 12);
        assert_int_equal(c.text.mlp_width, 4 * known[i].width);
        assert_int_equal(c.text.activation, c.image.activation);
        assert_true(c.text.causal && !c.image.causal);
        mm_model_config_clear(&c);
    }
}

static void the_text_tower_may_be_unknown_or_open_clips_default(void **state)
{
    (void)state;
    mm_model_config c = {0};
    assert_int_equal(mm_model_config_parse(tiny, "tiny", &c), MM_OK);
    assert_false(c.has_text);
    mm_model_config_clear(&c);
    assert_int_equal(
        mm_model_config_parse("{\"embed_dim\": 8, \"vision_cfg\": {" TINY_VISION
                              ", \"head_width\": 16}, \"text_cfg\": {}}",
                              "x", &c),
        MM_OK);
    assert_true(c.has_text);
    assert_int_equal(c.text.width, 512);
    assert_int_equal(c.text.n_heads, 8);
    assert_int_equal(c.text.mlp_width, 2048);
    assert_int_equal(c.vocab_size, 49408);
    mm_model_config_clear(&c);
}

/** A configuration with one more option in the section that has it. */
static void with_option(const char *section, const char *option, char text[512])
{
    const char *top = "", *vision = "", *in_text = "";
    *(section[0] == 'v'   ? &vision
      : section[0] == 't' ? &in_text
                          : &top) = option;
    snprintf(text, 512,
             "{\"embed_dim\": 8%s, \"vision_cfg\": {" TINY_VISION
             ", \"head_width\": 16%s}, \"text_cfg\": {\"layers\": 2%s}}",
             top, vision, in_text);
}

static void options_that_are_not_built_fail_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *section, *option, *fragment;
    } bad[] = {
        {"root", ", \"custom_text\": true", "custom_text true"},
        {"root", ", \"multimodal_cfg\": {}", "multimodal_cfg {}"},
        {"vision", ", \"timm_model_name\": \"vit_base\"",
         "vision_cfg.timm_model_name \"vit_base\" is not supported, only null"},
        {"vision", ", \"ls_init_value\": 1e-5", "vision_cfg.ls_init_value"},
        {"vision", ", \"attentional_pool\": true", "attentional_pool true"},
        {"vision", ", \"no_ln_pre\": true", "no_ln_pre true"},
        {"vision", ", \"pool_type\": \"avg\"", "only \"tok\""},
        {"vision", ", \"output_tokens\": true", "output_tokens true"},
        {"vision", ", \"patch_dropout\": 0.5", "patch_dropout 0.5"},
        {"vision", ", \"pos_embed_type\": \"sin_cos_2d\"", "pos_embed_type"},
        {"text", ", \"hf_model_name\": \"roberta-base\"",
         "text_cfg.hf_model_name \"roberta-base\" is not supported"},
        {"text", ", \"hf_tokenizer_name\": \"x\"", "hf_tokenizer_name"},
        {"text", ", \"pool_type\": \"last\"", "only \"argmax\""},
        {"text", ", \"embed_cls\": true", "text_cfg.embed_cls true"},
        {"text", ", \"no_causal_mask\": true", "no_causal_mask true"},
        {"text", ", \"proj_bias\": true", "proj_bias true"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        with_option(bad[i].section, bad[i].option, text);
        assert_refused(text, MM_E_ARG, bad[i].fragment);
    }
    assert_refused("{\"embed_dim\": 8, \"vision_cfg\": {\"layers\":"
                   " [3, 4, 6, 3]}}",
                   MM_E_ARG, "vision_cfg.layers is a list: a ResNet");
}

static void options_at_open_clips_defaults_are_accepted(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {"root", ", \"custom_text\": false"},
        {"vision", ", \"timm_model_name\": null, \"timm_drop\": 0.0"},
        {"vision", ", \"patch_dropout\": 0.0, \"pool_type\": \"tok\""},
        {"vision", ", \"attentional_pool\": false, \"attn_pooler_heads\": 8"},
        {"text", ", \"hf_model_name\": null, \"pool_type\": \"argmax\""},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[512];
        with_option(good[i][0], good[i][1], text);
        mm_model_config c = {0};
        if (mm_model_config_parse(text, "x", &c) != MM_OK)
            fail_msg("%s", mm_fail_message());
        mm_model_config_clear(&c);
    }
}

static void the_text_of_a_configuration_makes_it_again(void **state)
{
    (void)state;
    mm_model_config a = {0}, b = {0};
    find("ViT-L-14-336-quickgelu", &a);
    assert_int_equal(mm_model_config_parse(a.json, "again", &b), MM_OK);
    assert_string_equal(a.json, b.json);
    assert_int_equal(b.image.n_tokens, 577);
    assert_int_equal(b.image.activation, MM_QUICK_GELU);
    mm_model_config_clear(&a);
    mm_model_config_clear(&b);
}

static void derived_sizes_round_down(void **state)
{
    (void)state;
    mm_model_config c = {0};
    assert_int_equal(mm_model_config_parse(tiny, "tiny", &c), MM_OK);
    assert_int_equal(c.image.n_tokens, 17); /* 4 x 4 patches of 7 in 28 */
    assert_int_equal(c.image.n_heads, 3);
    assert_int_equal(c.image.mlp_width, 123); /* 123.36 */
    mm_model_config_clear(&c);
}

static void a_path_is_read(void **state)
{
    (void)state;
    char path[] = "/tmp/magmax-config-XXXXXX.json";
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, tiny, sizeof tiny - 1), sizeof tiny - 1);
    close(fd);
    mm_model_config c = {0};
    find(path, &c);
    assert_int_equal(c.image.width, 48);
    mm_model_config_clear(&c);
    unlink(path);
    assert_int_equal(mm_model_config_find(path, &c), MM_E_IO);
    assert_says(path);
}

static void an_unknown_model_fails_with_the_nearest(void **state)
{
    (void)state;
    mm_model_config c = {0};
    assert_int_equal(mm_model_config_find("ViT-B32", &c), MM_E_ARG);
    assert_says("unknown model 'ViT-B32'; did you mean ViT-B-32?");
    assert_says("ViT-L-14-336-quickgelu, or the path of a .json file");
    assert_int_equal(mm_model_config_find("vit_l_14-quickgello", &c), MM_E_ARG);
    assert_says("did you mean ViT-L-14-quickgelu?");
    assert_int_equal(mm_model_config_find("ViT-B-32-quick", &c), MM_E_ARG);
    assert_null(c.json);
}

static void an_unknown_key_fails_with_the_nearest(void **state)
{
    (void)state;
    assert_refused("{\"embed_dims\": 8, \"vision_cfg\": {" TINY_VISION "}}",
                   MM_E_ARG, "'embed_dims'; did you mean embed_dim?");
    assert_refused("{\"embed_dim\": 8, \"vision_cfg\": {" TINY_VISION
                   ", \"head_with\": 16}}",
                   MM_E_ARG,
                   "vision_cfg. unknown key 'head_with'; did you mean "
                   "head_width?");
    assert_refused("{\"embed_dim\": 8, \"vision_cfg\": {" TINY_VISION
                   ", \"head_width\": 16}, \"text_cfg\": {\"head\": 8}}",
                   MM_E_ARG, "did you mean heads?");
}

static void a_missing_key_fails(void **state)
{
    (void)state;
    assert_refused("{}", MM_E_FORMAT, "embed_dim is missing");
    assert_refused("{\"embed_dim\": 8}", MM_E_FORMAT, "vision_cfg is missing");
    assert_refused("{\"embed_dim\": 8, \"vision_cfg\": {\"width\": 8, "
                   "\"image_size\": 8, \"patch_size\": 8}}",
                   MM_E_FORMAT, "vision_cfg.layers is missing");
}

static void malformed_json_fails_with_its_line(void **state)
{
    (void)state;
    assert_refused("", MM_E_FORMAT, "line ");
    assert_refused("{\n\"embed_dim\": 8,\n,}", MM_E_FORMAT, "line 3");
    assert_refused("{\"embed_dim\": 8, \"embed_dim\": 9}", MM_E_FORMAT,
                   "duplicate");
    assert_refused("[1, 2]", MM_E_FORMAT, "not a JSON object");
}

static void a_value_of_another_type_fails(void **state)
{
    (void)state;
    assert_refused("{\"embed_dim\": \"8\"}", MM_E_FORMAT,
                   "embed_dim must be a whole number");
    assert_refused("{\"embed_dim\": 8.5}", MM_E_FORMAT,
                   "embed_dim must be a whole number");
    assert_refused("{\"embed_dim\": 8, \"quick_gelu\": 1}", MM_E_FORMAT,
                   "quick_gelu is not true or false");
    assert_refused("{\"embed_dim\": 8, \"vision_cfg\": 3}", MM_E_FORMAT,
                   "vision_cfg is not an object");
}

static void an_impossible_size_fails(void **state)
{
    (void)state;
    static const struct {
        const char *vision, *fragment;
    } bad[] = {
        {"\"image_size\": 8, \"patch_size\": 0, \"width\": 64, \"layers\": 1",
         "vision_cfg.patch_size must be"},
        {"\"image_size\": -8, \"patch_size\": 4, \"width\": 64, \"layers\": 1",
         "vision_cfg.image_size must be"},
        {"\"image_size\": 8, \"patch_size\": 16, \"width\": 64, \"layers\": 1",
         "image_size 8 is not a multiple of patch_size 16"},
        {"\"image_size\": 30, \"patch_size\": 7, \"width\": 64, \"layers\": 1",
         "image_size 30 is not a multiple of patch_size 7"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 100, \"layers\": 1",
         "width 100 is not a multiple of head_width 64"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 64, \"layers\": 0",
         "vision_cfg.layers must be"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 64, "
         "\"layers\": 99999999",
         "vision_cfg.layers must be"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 64, \"layers\": 1, "
         "\"mlp_ratio\": 0.001",
         "mlp_ratio makes an MLP without width"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 64, \"layers\": 1, "
         "\"mlp_ratio\": -1",
         "vision_cfg.mlp_ratio must be"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[400];
        snprintf(text, sizeof text, "{\"embed_dim\": 8, \"vision_cfg\": {%s}}",
                 bad[i].vision);
        assert_refused(text, MM_E_FORMAT, bad[i].fragment);
    }
    assert_refused("{\"embed_dim\": 0}", MM_E_FORMAT, "embed_dim must be");
}

/** mm_model_config_choose, and what it warned of. */
static mm_status choose(const char *name, const char *recorded,
                        mm_model_config *config, char warning[512])
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int kept = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    mm_log *log = mm_log_create("magmax_try", 0, false);
    mm_status st =
        mm_model_config_choose(name, recorded, "base.h5", log, config);
    mm_log_destroy(&log);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    warning[fread(warning, 1, 511, file)] = '\0';
    fclose(file);
    return st;
}

static void the_file_says_what_it_holds(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config c = {0};
    assert_int_equal(choose(NULL, tiny, &c, warning), MM_OK);
    assert_int_equal(c.image.width, 48);
    assert_string_equal(warning, "");
    mm_model_config_clear(&c);
}

static void a_typed_name_serves_a_file_that_says_nothing(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config c = {0};
    assert_int_equal(choose("ViT-B-16", NULL, &c, warning), MM_OK);
    assert_int_equal(c.image.n_tokens, 197);
    assert_string_equal(warning, "");
    mm_model_config_clear(&c);
}

static void neither_name_nor_record_fails(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config c = {0};
    assert_int_equal(choose(NULL, NULL, &c, warning), MM_E_ARG);
    assert_says("--model is required");
    assert_says("base.h5");
    assert_int_equal(mm_model_config_choose(NULL, NULL, NULL, NULL, &c),
                     MM_E_ARG);
}

static void the_activation_follows_the_file(void **state)
{
    (void)state;
    const char *const names[] = {"ViT-B-32", "ViT-B-32-quickgelu"};
    for (int i = 0; i < 2; i++) {
        char warning[512];
        mm_model_config recorded = {0}, c = {0};
        find(names[1 - i], &recorded);
        assert_int_equal(choose(names[i], recorded.json, &c, warning), MM_OK);
        assert_int_equal(c.image.activation, recorded.image.activation);
        assert_non_null(
            strstr(warning, i ? "made with GELU" : "made with QuickGELU"));
        mm_model_config_clear(&c);
        assert_int_equal(choose(names[1 - i], recorded.json, &c, warning),
                         MM_OK);
        assert_string_equal(warning, "");
        mm_model_config_clear(&c);
        mm_model_config_clear(&recorded);
    }
}

static void the_size_of_images_is_the_typed_one(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config recorded = {0}, c = {0};
    find("ViT-L-14-quickgelu", &recorded);
    assert_int_equal(choose("ViT-L-14-336", recorded.json, &c, warning), MM_OK);
    assert_int_equal(c.image_size, 336);
    assert_int_equal(c.image.n_tokens, 577);
    assert_int_equal(c.image.activation, MM_QUICK_GELU);
    assert_non_null(strstr(c.json, "336"));
    mm_model_config_clear(&c);
    mm_model_config_clear(&recorded);
}

static void a_size_that_differs_is_named(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config recorded = {0}, c = {0};
    find("ViT-B-16", &recorded);
    assert_int_equal(choose("ViT-B-32", recorded.json, &c, warning), MM_E_ARG);
    assert_says("--model has patch_size 32, but base.h5 holds a model with 16");
    mm_model_config_clear(&c);
    assert_int_equal(choose("ViT-L-14", recorded.json, &c, warning), MM_E_ARG);
    assert_says("embed_dim 768");
    mm_model_config_clear(&c);
    mm_model_config_clear(&recorded);
}

static void a_text_tower_is_taken_from_whoever_knows_it(void **state)
{
    (void)state;
    static const char image_only[] =
        "{\"embed_dim\": 512, \"quick_gelu\": true, \"vision_cfg\": "
        "{\"image_size\": 224, \"patch_size\": 16, \"width\": 768, "
        "\"layers\": 12}}";
    char warning[512];
    mm_model_config c = {0}, typed = {0};
    assert_int_equal(choose("ViT-B-16", image_only, &c, warning), MM_OK);
    assert_true(c.has_text);
    assert_int_equal(c.text.width, 512);
    assert_int_equal(c.text.activation, MM_QUICK_GELU);
    assert_non_null(strstr(c.json, "text_cfg"));
    mm_model_config_clear(&c);

    char path[] = "/tmp/magmax-config-XXXXXX.json";
    int fd = mkstemps(path, 5);
    assert_int_equal(write(fd, image_only, sizeof image_only - 1),
                     sizeof image_only - 1);
    close(fd);
    find("ViT-B-16-quickgelu", &typed);
    assert_int_equal(choose(path, typed.json, &c, warning), MM_OK);
    assert_true(c.has_text);
    assert_string_equal(warning, "");
    mm_model_config_clear(&c);
    mm_model_config_clear(&typed);
    unlink(path);
}

static void a_text_size_that_differs_is_named(void **state)
{
    (void)state;
    char warning[512], other[512], same[512];
    with_option("text", ", \"width\": 64", other);
    with_option("text", "", same);
    char path[] = "/tmp/magmax-config-XXXXXX.json";
    int fd = mkstemps(path, 5);
    assert_true(write(fd, same, strlen(same)) > 0);
    close(fd);
    mm_model_config c = {0};
    assert_int_equal(choose(path, other, &c, warning), MM_E_ARG);
    assert_says("--model has text width 512, but base.h5 holds a model with "
                "64");
    mm_model_config_clear(&c);
    unlink(path);
}

static void a_damaged_record_fails_with_the_file(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config c = {0};
    assert_int_equal(choose("ViT-B-32", "{", &c, warning), MM_E_FORMAT);
    assert_says("base.h5: ");
    mm_model_config_clear(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_models_have_their_sizes),
        cmocka_unit_test(quickgelu_twins_differ_in_the_activation_alone),
        cmocka_unit_test(built_in_text_towers_have_their_sizes),
        cmocka_unit_test(the_text_tower_may_be_unknown_or_open_clips_default),
        cmocka_unit_test(options_that_are_not_built_fail_by_name),
        cmocka_unit_test(options_at_open_clips_defaults_are_accepted),
        cmocka_unit_test(the_text_of_a_configuration_makes_it_again),
        cmocka_unit_test(derived_sizes_round_down),
        cmocka_unit_test(a_path_is_read),
        cmocka_unit_test(an_unknown_model_fails_with_the_nearest),
        cmocka_unit_test(an_unknown_key_fails_with_the_nearest),
        cmocka_unit_test(a_missing_key_fails),
        cmocka_unit_test(malformed_json_fails_with_its_line),
        cmocka_unit_test(a_value_of_another_type_fails),
        cmocka_unit_test(an_impossible_size_fails),
        cmocka_unit_test(the_file_says_what_it_holds),
        cmocka_unit_test(a_typed_name_serves_a_file_that_says_nothing),
        cmocka_unit_test(neither_name_nor_record_fails),
        cmocka_unit_test(the_activation_follows_the_file),
        cmocka_unit_test(the_size_of_images_is_the_typed_one),
        cmocka_unit_test(a_size_that_differs_is_named),
        cmocka_unit_test(a_text_tower_is_taken_from_whoever_knows_it),
        cmocka_unit_test(a_text_size_that_differs_is_named),
        cmocka_unit_test(a_damaged_record_fails_with_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
