/* Lists of names: the nearest one, the message for an unknown one. */
#include "src/base/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const models[] = {"ViT-B-32", "ViT-B-16", "ViT-L-14"};

static void assert_says(const char *fragment)
{
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
}

static void the_nearest_name_is_fewest_edits_away(void **state)
{
    (void)state;
    assert_int_equal(mm_names_nearest("ViT-B-32", models, 3), 0);
    assert_int_equal(mm_names_nearest("ViT-B16", models, 3), 1);
    assert_int_equal(mm_names_nearest("ViT-L-114", models, 3), 2);
    assert_int_equal(mm_names_nearest("Vit-L-41", models, 3), 2);
}

static void the_first_of_equally_near_names_is_taken(void **state)
{
    (void)state;
    const char *const names[] = {"cat", "bat", "rat"};
    assert_int_equal(mm_names_nearest("hat", names, 3), 0);
    assert_int_equal(mm_names_nearest("", names, 3), 0);
}

static void case_and_underscores_do_not_count(void **state)
{
    (void)state;
    const char *const names[] = {"vit-b-31", "VIT_B_32"};
    assert_int_equal(mm_names_nearest("vit-b-32", names, 2), 1);
}

static void nothing_is_nearest_in_an_empty_list(void **state)
{
    (void)state;
    assert_int_equal(mm_names_nearest("ViT-B-32", models, 0), -1);
    assert_int_equal(mm_names_unknown("model", "x", models, 0), MM_E_ARG);
    assert_says("unknown model 'x'");
}

static void a_name_of_any_length_has_a_nearest(void **state)
{
    (void)state;
    char given[4096];
    memset(given, 'a', sizeof given - 1);
    given[sizeof given - 1] = '\0';
    const char *const names[] = {given, "b"};
    assert_int_equal(mm_names_nearest("b", names, 2), 1);
    assert_int_equal(mm_names_nearest(given, names, 2), 0);
    assert_int_equal(mm_names_unknown("model", given, names, 2), MM_E_ARG);
    assert_says("unknown model 'aaa");
}

static void an_unknown_name_fails_with_the_nearest_and_all(void **state)
{
    (void)state;
    assert_int_equal(mm_names_unknown("model", "ViT-B32", models, 3), MM_E_ARG);
    assert_string_equal(mm_fail_message(),
                        "unknown model 'ViT-B32'; did you mean ViT-B-32? "
                        "Known: ViT-B-32, ViT-B-16, ViT-L-14");
}

static void a_very_long_list_is_cut_and_not_overrun(void **state)
{
    (void)state;
    const char *names[300];
    for (int i = 0; i < 300; i++)
        names[i] = "another-name";
    names[299] = "wanted";
    assert_int_equal(mm_names_unknown("name", "wantd", names, 300), MM_E_ARG);
    assert_says("did you mean wanted?");
    assert_says("Known: another-name, another-name, ");
}

static void a_list_is_split_at_commas(void **state)
{
    (void)state;
    char **pieces;
    int n;
    assert_int_equal(mm_names_split("class,data,domain", &pieces, &n), MM_OK);
    assert_int_equal(n, 3);
    assert_string_equal(pieces[0], "class");
    assert_string_equal(pieces[1], "data");
    assert_string_equal(pieces[2], "domain");
    free(pieces);
    assert_int_equal(mm_names_split("one", &pieces, &n), MM_OK);
    assert_int_equal(n, 1);
    assert_string_equal(pieces[0], "one");
    free(pieces);
}

static void an_empty_piece_fails(void **state)
{
    (void)state;
    const char *const lists[] = {"", ",", "a,", ",a", "a,,b"};
    for (int i = 0; i < 5; i++) {
        char **pieces;
        int n;
        assert_int_equal(mm_names_split(lists[i], &pieces, &n), MM_E_ARG);
        assert_says("empty name");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_name_is_fewest_edits_away),
        cmocka_unit_test(the_first_of_equally_near_names_is_taken),
        cmocka_unit_test(case_and_underscores_do_not_count),
        cmocka_unit_test(nothing_is_nearest_in_an_empty_list),
        cmocka_unit_test(a_name_of_any_length_has_a_nearest),
        cmocka_unit_test(an_unknown_name_fails_with_the_nearest_and_all),
        cmocka_unit_test(a_very_long_list_is_cut_and_not_overrun),
        cmocka_unit_test(a_list_is_split_at_commas),
        cmocka_unit_test(an_empty_piece_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
