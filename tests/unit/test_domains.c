/* Synthetic domains, by hand on small images. */
#include "src/data/domains.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char name[] = "data.npz";

/** One half of n images, borrowed pixels and labels. */
static mm_dataset dataset_of(uint8_t *pixels, int64_t height, int64_t width,
                             int channels, int32_t *labels, int64_t n)
{
    mm_half half = {.n_images = n,
                    .height = height,
                    .width = width,
                    .channels = channels,
                    .pixels = pixels,
                    .labels = labels};
    mm_half none = half;
    none.n_images = 0;
    return (mm_dataset){.name = name,
                        .train = half,
                        .test = none,
                        .n_classes = 2,
                        .n_domains = 1};
}

static mm_dataset *make(const mm_dataset *source, const mm_domains_plan *plan)
{
    mm_dataset *made = NULL;
    if (mm_domains_create(source, plan, NULL, &made) != MM_OK)
        fail_msg("%s", mm_fail_message());
    return made;
}

static void assert_fails(const mm_dataset *source, const mm_domains_plan *plan,
                         const char *fragment)
{
    mm_dataset *made = NULL;
    assert_int_equal(mm_domains_create(source, plan, NULL, &made), MM_E_ARG);
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
    assert_null(made);
}

/** One image in one domain; checks shape and bytes. */
static void assert_domain(const char *domain, uint8_t *pixels, int64_t height,
                          int64_t width, const uint8_t *want,
                          int64_t want_height, int64_t want_width)
{
    int32_t label = 1;
    mm_dataset source = dataset_of(pixels, height, width, 1, &label, 1);
    mm_domains_plan plan = {.names = &domain, .n_names = 1};
    mm_dataset *made = make(&source, &plan);
    assert_int_equal(made->train.n_images, 1);
    assert_int_equal(made->train.height, want_height);
    assert_int_equal(made->train.width, want_width);
    assert_memory_equal(made->train.pixels, want, (size_t)(height * width));
    assert_int_equal(made->train.labels[0], 1);
    assert_int_equal(made->train.domains[0], 0);
    mm_domains_destroy(&made);
    assert_null(made);
}

static void upright_and_invert_keep_the_shape(void **state)
{
    (void)state;
    uint8_t pixels[] = {0, 1, 2, 100, 254, 255};
    const uint8_t inverted[] = {255, 254, 253, 155, 1, 0};
    assert_domain("upright", pixels, 2, 3, pixels, 2, 3);
    assert_domain("invert", pixels, 2, 3, inverted, 2, 3);
}

static void rot90_turns_counter_clockwise(void **state)
{
    (void)state;
    uint8_t pixels[] = {1, 2, 3, 4, 5, 6};
    const uint8_t turned[] = {3, 6, 2, 5, 1, 4};
    assert_domain("rot90", pixels, 2, 3, turned, 3, 2);
}

static void pixelate_averages_blocks_and_transposes(void **state)
{
    (void)state;
    /* Means 2.5 -> 3, 255, 0.25 -> 0, 7.75 -> 8. */
    uint8_t pixels[] = {1, 2, 255, 255, 3, 4, 255, 255, 0, 0, 7, 8, 0, 1, 8, 8};
    const uint8_t means[] = {3,   3,   0, 0, 3,   3,   0, 0,
                             255, 255, 8, 8, 255, 255, 8, 8};
    assert_domain("pixelate", pixels, 4, 4, means, 4, 4);
}

static void pixelate_averages_what_an_odd_edge_has(void **state)
{
    (void)state;
    uint8_t pixels[] = {1, 3, 10, 5, 7, 21, 100, 103, 77};
    /* Blocks: (1 3 5 7) 4, (10 21) 15.5 -> 16, (100 103) 101.5 -> 102, 77. */
    const uint8_t means[] = {4, 4, 102, 4, 4, 102, 16, 16, 77};
    assert_domain("pixelate", pixels, 3, 3, means, 3, 3);
}

static void noise_has_the_mean_and_deviation_that_it_says(void **state)
{
    (void)state;
    enum { N = 100 * 100 };
    static uint8_t pixels[N];
    memset(pixels, 184, sizeof pixels); /* mean 36 + 92 = 128: little clips */
    int32_t label = 0;
    mm_dataset source = dataset_of(pixels, 100, 100, 1, &label, 1);
    const char *domain = "noise";
    mm_domains_plan plan = {.names = &domain, .n_names = 1, .seed = 5};
    mm_dataset *made = make(&source, &plan);
    double sum = 0, sum_of_squares = 0;
    for (int i = 0; i < N; i++) {
        double v = made->train.pixels[i] - 128.0;
        sum += v / N;
        sum_of_squares += v * v / N;
    }
    assert_true(sum > -2.5 && sum < 2.5); /* four deviations of the mean */
    assert_true(sum_of_squares > 58 * 58 && sum_of_squares < 65 * 65);
    mm_domains_destroy(&made);
}

static void noise_is_keyed_on_seed_sample_and_half(void **state)
{
    (void)state;
    uint8_t pixels[2 * 16];
    memset(pixels, 128, sizeof pixels);
    int32_t labels[] = {0, 1};
    mm_dataset source = dataset_of(pixels, 4, 4, 1, labels, 2);
    source.test = source.train;
    const char *domain = "noise";
    mm_domains_plan plan = {.names = &domain, .n_names = 1, .seed = 5};
    mm_dataset *a = make(&source, &plan), *b = make(&source, &plan);
    plan.seed = 6;
    mm_dataset *c = make(&source, &plan);
    const uint8_t *noise = a->train.pixels;
    assert_memory_equal(noise, b->train.pixels, 32);
    assert_memory_not_equal(noise, c->train.pixels, 32);
    assert_memory_not_equal(noise, noise + 16, 16);
    assert_memory_not_equal(noise, a->test.pixels, 32);
    mm_domains_destroy(&a);
    mm_domains_destroy(&b);
    mm_domains_destroy(&c);
}

static void
noise_of_a_sample_does_not_depend_on_which_others_are_kept(void **state)
{
    (void)state;
    uint8_t pixels[4 * 4];
    memset(pixels, 128, sizeof pixels);
    int32_t labels[] = {0, 0, 1, 1}; /* a limit of one keeps 0 and 2 */
    mm_dataset source = dataset_of(pixels, 2, 2, 1, labels, 4);
    const char *domain = "noise";
    mm_domains_plan plan = {.names = &domain, .n_names = 1};
    mm_dataset *all = make(&source, &plan);
    plan.train_per_class = 1;
    mm_dataset *some = make(&source, &plan);
    assert_int_equal(some->train.n_images, 2);
    assert_memory_equal(some->train.pixels, all->train.pixels, 4);
    assert_memory_equal(some->train.pixels + 4, all->train.pixels + 8, 4);
    assert_int_equal(some->train.labels[1], 1);
    mm_domains_destroy(&all);
    mm_domains_destroy(&some);
}

static void domains_follow_each_other_with_labels_repeated(void **state)
{
    (void)state;
    uint8_t pixels[] = {1, 2, 3};
    int32_t labels[] = {1, 0, 1};
    mm_dataset source = dataset_of(pixels, 1, 1, 1, labels, 3);
    const char *domains[] = {"invert", "upright"};
    mm_domains_plan plan = {.names = domains, .n_names = 2};
    mm_dataset *made = make(&source, &plan);
    const uint8_t want[] = {254, 253, 252, 1, 2, 3};
    assert_int_equal(made->train.n_images, 6);
    assert_memory_equal(made->train.pixels, want, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(made->train.domains[i], i / 3);
        assert_int_equal(made->train.labels[i], labels[i % 3]);
    }
    assert_int_equal(made->n_domains, 2);
    assert_string_equal(made->domain_names[1], "upright");
    assert_int_equal(made->test.n_images, 0);
    mm_domains_destroy(&made);
}

static void without_names_the_sources_domains_are_kept(void **state)
{
    (void)state;
    uint8_t pixels[] = {1, 2, 3, 4, 5, 6};
    int32_t labels[] = {0, 0, 1, 0, 1, 1}, domains[] = {1, 1, 0, 0, 0, 1};
    mm_dataset source = dataset_of(pixels, 1, 1, 1, labels, 6);
    source.train.domains = domains;
    source.n_domains = 2;
    mm_domains_plan plan = {.train_per_class = 1};
    mm_dataset *made = make(&source, &plan);
    const uint8_t want[] = {1, 3, 4, 6};
    const int32_t want_domains[] = {1, 0, 0, 1};
    assert_int_equal(made->train.n_images, 4);
    assert_memory_equal(made->train.pixels, want, 4);
    assert_memory_equal(made->train.domains, want_domains, sizeof want_domains);
    assert_int_equal(made->n_domains, 2);
    mm_domains_destroy(&made);
}

static void new_domains_of_data_that_has_some_fail(void **state)
{
    (void)state;
    uint8_t pixel = 0;
    int32_t label = 0, domain = 0;
    mm_dataset source = dataset_of(&pixel, 1, 1, 1, &label, 1);
    source.train.domains = &domain;
    const char *names[] = {"invert"};
    mm_domains_plan plan = {.names = names, .n_names = 1};
    assert_fails(&source, &plan, "data.npz has domains already");
}

static void domains_of_two_shapes_fail_unless_all_of_them_turn(void **state)
{
    (void)state;
    uint8_t pixels[6] = {0};
    int32_t label = 0;
    mm_dataset source = dataset_of(pixels, 2, 3, 1, &label, 1);
    const char *mixed[] = {"upright", "pixelate"};
    const char *turned[] = {"rot90", "pixelate"};
    mm_domains_plan plan = {.names = mixed, .n_names = 2};
    assert_fails(&source, &plan,
                 "domains upright and pixelate of data.npz would have images "
                 "of two sizes: 2 x 3 is not square");
    plan.names = turned;
    mm_dataset *made = make(&source, &plan);
    assert_int_equal(made->train.height, 3);
    assert_int_equal(made->train.width, 2);
    mm_domains_destroy(&made);
}

static void unknown_and_repeated_names_fail(void **state)
{
    (void)state;
    const char *unknown[] = {"upright", "pixellate"};
    const char *repeated[] = {"noise", "invert", "noise"};
    assert_int_equal(mm_domains_check(unknown, 2), MM_E_ARG);
    assert_non_null(strstr(mm_fail_message(), "did you mean pixelate"));
    assert_non_null(strstr(mm_fail_message(), "upright, rot90, invert, noise"));
    assert_int_equal(mm_domains_check(repeated, 3), MM_E_ARG);
    assert_non_null(strstr(mm_fail_message(), "noise is named twice"));
    assert_int_equal(mm_domains_check(repeated, 2), MM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(upright_and_invert_keep_the_shape),
        cmocka_unit_test(rot90_turns_counter_clockwise),
        cmocka_unit_test(pixelate_averages_blocks_and_transposes),
        cmocka_unit_test(pixelate_averages_what_an_odd_edge_has),
        cmocka_unit_test(noise_has_the_mean_and_deviation_that_it_says),
        cmocka_unit_test(noise_is_keyed_on_seed_sample_and_half),
        cmocka_unit_test(
            noise_of_a_sample_does_not_depend_on_which_others_are_kept),
        cmocka_unit_test(domains_follow_each_other_with_labels_repeated),
        cmocka_unit_test(without_names_the_sources_domains_are_kept),
        cmocka_unit_test(new_domains_of_data_that_has_some_fail),
        cmocka_unit_test(domains_of_two_shapes_fail_unless_all_of_them_turn),
        cmocka_unit_test(unknown_and_repeated_names_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
