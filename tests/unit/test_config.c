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
    "\"image_size\": 30, \"patch_size\": 7, \"width\": 48, \"layers\": 3"

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
        assert_int_equal(c.width, known[i].width);
        assert_int_equal(c.n_layers, known[i].layers);
        assert_int_equal(c.head_width, 64);
        assert_int_equal(c.n_heads, known[i].heads);
        assert_int_equal(c.n_tokens, known[i].tokens);
        assert_int_equal(c.mlp_width, 4 * known[i].width);
        assert_int_equal(c.activation, MM_GELU);
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
        assert_int_equal(b.activation, MM_QUICK_GELU);
        assert_int_equal(a.n_tokens, b.n_tokens);
        assert_int_equal(a.width, b.width);
        assert_int_equal(a.n_layers, b.n_layers);
        assert_int_equal(a.embed_dim, b.embed_dim);
        mm_model_config_clear(&a);
        mm_model_config_clear(&b);
    }
}

static void the_text_of_a_configuration_makes_it_again(void **state)
{
    (void)state;
    mm_model_config a = {0}, b = {0};
    find("ViT-L-14-336-quickgelu", &a);
    assert_int_equal(mm_model_config_parse(a.json, "again", &b), MM_OK);
    assert_string_equal(a.json, b.json);
    assert_int_equal(b.n_tokens, 577);
    assert_int_equal(b.activation, MM_QUICK_GELU);
    mm_model_config_clear(&a);
    mm_model_config_clear(&b);
}

static void derived_sizes_round_down(void **state)
{
    (void)state;
    mm_model_config c = {0};
    assert_int_equal(mm_model_config_parse(tiny, "tiny", &c), MM_OK);
    assert_int_equal(c.n_tokens, 17); /* 4 x 4 patches of 7 in 30 */
    assert_int_equal(c.n_heads, 3);
    assert_int_equal(c.mlp_width, 123); /* 123.36 */
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
    assert_int_equal(c.width, 48);
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
         "image_size 8 is less than patch_size 16"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 100, \"layers\": 1",
         "width 100 is no multiple of head_width 64"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 64, \"layers\": 0",
         "vision_cfg.layers must be"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 64, "
         "\"layers\": 99999999",
         "vision_cfg.layers must be"},
        {"\"image_size\": 8, \"patch_size\": 4, \"width\": 64, \"layers\": 1, "
         "\"mlp_ratio\": 0.001",
         "mlp_ratio leaves no MLP"},
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
    assert_int_equal(c.width, 48);
    assert_string_equal(warning, "");
    mm_model_config_clear(&c);
}

static void a_typed_name_serves_a_file_that_says_nothing(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config c = {0};
    assert_int_equal(choose("ViT-B-16", NULL, &c, warning), MM_OK);
    assert_int_equal(c.n_tokens, 197);
    assert_string_equal(warning, "");
    mm_model_config_clear(&c);
}

static void neither_name_nor_record_fails(void **state)
{
    (void)state;
    char warning[512];
    mm_model_config c = {0};
    assert_int_equal(choose(NULL, NULL, &c, warning), MM_E_ARG);
    assert_says("--model is needed");
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
        assert_int_equal(c.activation, recorded.activation);
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
        cmocka_unit_test(a_size_that_differs_is_named),
        cmocka_unit_test(a_damaged_record_fails_with_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
