/* Heads in files: rows, class names, prompts. */
#include "src/model/head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static char folder[] = "/tmp/magmax-head-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/head.h5", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static float rows[] = {1, 2, 3, 4, 5, 6};
static const char *const names[] = {"a cat", "",
                                    "Stra\xc3\x9f"
                                    "e"};
static const char *const prompts[] = {"{}.", "a {}"};

static void must(mm_status st)
{
    if (st != MM_OK)
        fail_msg("%s", mm_fail_message());
}

static void a_written_head_is_read_again(void **state)
{
    (void)state;
    const mm_head made = {3, 2, rows, (char **)names, (char **)prompts, 2};
    mm_head head = {0};
    must(mm_head_write(path, &made, "{}"));
    must(mm_head_read(path, 2, &head));
    assert_int_equal(head.n_classes, 3);
    assert_int_equal(head.embed_dim, 2);
    assert_memory_equal(head.weight, rows, sizeof rows);
    for (int i = 0; i < 3; i++)
        assert_string_equal(head.class_names[i], names[i]);
    assert_int_equal(head.n_prompts, 2);
    for (int i = 0; i < 2; i++)
        assert_string_equal(head.prompts[i], prompts[i]);
    mm_head_clear(&head);
    assert_null(head.class_names);
}

static void names_and_prompts_may_be_missing(void **state)
{
    (void)state;
    const mm_head made = {.n_classes = 3, .embed_dim = 2, .weight = rows};
    mm_head head = {0};
    must(mm_head_write(path, &made, "{}"));
    must(mm_head_read(path, 2, &head));
    assert_null(head.class_names);
    assert_null(head.prompts);
    assert_int_equal(head.n_prompts, 0);
    mm_head_clear(&head);
}

static void another_embed_dim_fails(void **state)
{
    (void)state;
    const mm_head made = {.n_classes = 3, .embed_dim = 2, .weight = rows};
    mm_head head = {0};
    must(mm_head_write(path, &made, "{}"));
    assert_int_equal(mm_head_read(path, 4, &head), MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), "embed_dim is 4"));
    assert_null(head.weight);
}

static void a_row_is_scaled_unless_it_has_no_direction(void **state)
{
    (void)state;
    double row[] = {3, 4}, nothing[] = {0, 0}, endless[] = {1, INFINITY};
    assert_true(mm_head_set_length(row, 2, 10));
    assert_true(fabs(row[0] - 6) < 1e-12 && fabs(row[1] - 8) < 1e-12);
    assert_false(mm_head_set_length(nothing, 2, 10));
    assert_false(mm_head_set_length(endless, 2, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_written_head_is_read_again),
        cmocka_unit_test(names_and_prompts_may_be_missing),
        cmocka_unit_test(another_embed_dim_fails),
        cmocka_unit_test(a_row_is_scaled_unless_it_has_no_direction),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
