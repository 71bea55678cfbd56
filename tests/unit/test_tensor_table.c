/* The table of a model's tensors in one flat buffer. */
#include "src/base/tensor_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

static void add(mm_tensor_table *table, const char *name, int n_dims,
                const int64_t *shape)
{
    if (mm_tensor_table_add(table, name, n_dims, shape) != MM_OK)
        fail_msg("%s", mm_fail_message());
}

/** Adding fails, says so, and leaves the table as it was. */
static void assert_refused(mm_tensor_table *table, const char *name, int n_dims,
                           const int64_t *shape, const char *fragment)
{
    int n_tensors = table->n_tensors;
    int64_t n_elems = table->n_elems;
    assert_int_equal(mm_tensor_table_add(table, name, n_dims, shape), MM_E_ARG);
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
    assert_int_equal(table->n_tensors, n_tensors);
    assert_int_equal(table->n_elems, n_elems);
}

static void tensors_lie_back_to_back_in_order(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    add(&table, "a", 2, (int64_t[]){3, 4});
    add(&table, "b", 0, NULL);
    add(&table, "c", 3, (int64_t[]){2, 0, 5});
    add(&table, "d", 1, (int64_t[]){7});
    const int64_t sizes[] = {12, 1, 0, 7}, offsets[] = {0, 12, 13, 13};
    assert_int_equal(table.n_tensors, 4);
    assert_int_equal(table.n_elems, 20);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(table.tensors[i].n_elems, sizes[i]);
        assert_int_equal(table.tensors[i].off_elems, offsets[i]);
    }
    assert_int_equal(table.tensors[0].n_dims, 2);
    assert_int_equal(table.tensors[0].shape[1], 4);
    mm_tensor_table_clear(&table);
    assert_int_equal(table.n_tensors, 0);
    assert_int_equal(table.n_elems, 0);
    assert_null(table.tensors);
}

static void names_and_shapes_are_copied(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    char name[] = "weight";
    int64_t shape[] = {2, 3};
    add(&table, name, 2, shape);
    name[0] = 'X';
    shape[0] = 9;
    assert_string_equal(table.tensors[0].name, "weight");
    assert_int_equal(table.tensors[0].shape[0], 2);
    mm_tensor_table_clear(&table);
}

static void a_tensor_is_found_by_its_whole_name(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    assert_int_equal(mm_tensor_table_find(&table, "a"), -1);
    add(&table, "ln.weight", 1, (int64_t[]){1});
    add(&table, "ln", 1, (int64_t[]){1});
    assert_int_equal(mm_tensor_table_find(&table, "ln"), 1);
    assert_int_equal(mm_tensor_table_find(&table, "ln.weight"), 0);
    assert_int_equal(mm_tensor_table_find(&table, "ln.w"), -1);
    assert_int_equal(mm_tensor_table_find(&table, "LN"), -1);
    mm_tensor_table_clear(&table);
}

static void every_element_has_its_tensor_also_beside_empty_ones(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 3, 0, 0, 1, 5, 0};
    mm_tensor_table table = {0};
    for (int i = 0; i < 7; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        add(&table, name, 1, &sizes[i]);
    }
    int64_t elem = 0;
    for (int i = 0; i < 7; i++)
        for (int64_t j = 0; j < sizes[i]; j++)
            assert_int_equal(mm_tensor_table_at(&table, elem++), i);
    assert_int_equal(elem, table.n_elems);
    mm_tensor_table_clear(&table);
}

static void a_name_that_is_there_already_fails(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    add(&table, "proj", 1, (int64_t[]){2});
    assert_refused(&table, "proj", 1, (int64_t[]){3}, "proj appears twice");
    mm_tensor_table_clear(&table);
}

static void too_many_dimensions_fail(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    const int64_t ones[MM_MAX_DIMS + 1] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    assert_refused(&table, "deep", MM_MAX_DIMS + 1, ones, "9 dimensions");
    assert_refused(&table, "deep", -1, ones, "-1 dimensions");
    add(&table, "deep", MM_MAX_DIMS, ones);
    mm_tensor_table_clear(&table);
}

static void a_size_beyond_int64_fails(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    assert_refused(&table, "big", 2, (int64_t[]){INT64_MAX, 2}, "big has an");
    assert_refused(&table, "big", 3, (int64_t[]){1 << 30, 1 << 30, 1 << 30},
                   "impossible shape");
    assert_refused(&table, "big", 2, (int64_t[]){-2, -3}, "impossible shape");
    add(&table, "most", 1, (int64_t[]){INT64_MAX});
    add(&table, "empty", 1, (int64_t[]){0});
    assert_refused(&table, "one", 1, (int64_t[]){1}, "impossible shape");
    mm_tensor_table_clear(&table);
}

static void a_table_holds_many_tensors(void **state)
{
    (void)state;
    enum { MANY = 1500 };
    mm_tensor_table table = {0};
    char name[32];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "tensor.%d", i);
        add(&table, name, 2, (int64_t[]){i % 3, 5});
    }
    assert_int_equal(table.n_tensors, MANY);
    assert_int_equal(table.n_elems, MANY / 3 * 15);
    int64_t offset = 0;
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "tensor.%d", i);
        assert_int_equal(mm_tensor_table_find(&table, name), i);
        assert_int_equal(table.tensors[i].off_elems, offset);
        offset += table.tensors[i].n_elems;
    }
    mm_tensor_table_clear(&table);
}

static void shapes_are_the_same_in_rank_and_every_size(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    add(&table, "a", 2, (int64_t[]){2, 3});
    add(&table, "b", 2, (int64_t[]){2, 3});
    add(&table, "c", 2, (int64_t[]){3, 2});
    add(&table, "d", 3, (int64_t[]){2, 3, 1});
    const mm_tensor *t = table.tensors;
    assert_true(mm_tensor_same_shape(&t[0], &t[1]));
    assert_false(mm_tensor_same_shape(&t[0], &t[2]));
    assert_false(mm_tensor_same_shape(&t[0], &t[3]));
    mm_tensor_table_clear(&table);
}

static void one_number_has_shape_none_or_one(void **state)
{
    (void)state;
    mm_tensor_table table = {0};
    add(&table, "none", 0, (int64_t[]){0});
    add(&table, "one", 1, (int64_t[]){1});
    add(&table, "two", 1, (int64_t[]){2});
    add(&table, "matrix", 2, (int64_t[]){1, 1});
    const mm_tensor *t = table.tensors;
    assert_true(mm_tensor_same_shape(&t[0], &t[1]));
    assert_true(mm_tensor_same_shape(&t[1], &t[0]));
    assert_false(mm_tensor_same_shape(&t[0], &t[2]));
    assert_false(mm_tensor_same_shape(&t[0], &t[3]));
    mm_tensor_table_clear(&table);
}

static void a_shape_is_shown_as_in_python(void **state)
{
    (void)state;
    char text[192];
    mm_tensor t = {.n_dims = 4, .shape = {768, 3, 16, 16}};
    mm_tensor_shape_text(&t, text);
    assert_string_equal(text, "[768, 3, 16, 16]");
    t.n_dims = 0;
    mm_tensor_shape_text(&t, text);
    assert_string_equal(text, "[]");
    t.n_dims = MM_MAX_DIMS;
    for (int i = 0; i < MM_MAX_DIMS; i++)
        t.shape[i] = INT64_MAX;
    mm_tensor_shape_text(&t, text);
    assert_int_equal(text[strlen(text) - 1], ']');
}

static void the_image_tower_is_known_by_its_prefix(void **state)
{
    (void)state;
    char visual[] = "visual.proj", text[] = "transformer.visual.x";
    assert_true(mm_tensor_is_visual(&(mm_tensor){.name = visual}));
    assert_false(mm_tensor_is_visual(&(mm_tensor){.name = text}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_lie_back_to_back_in_order),
        cmocka_unit_test(names_and_shapes_are_copied),
        cmocka_unit_test(a_tensor_is_found_by_its_whole_name),
        cmocka_unit_test(every_element_has_its_tensor_also_beside_empty_ones),
        cmocka_unit_test(a_name_that_is_there_already_fails),
        cmocka_unit_test(too_many_dimensions_fail),
        cmocka_unit_test(a_size_beyond_int64_fails),
        cmocka_unit_test(a_table_holds_many_tensors),
        cmocka_unit_test(shapes_are_the_same_in_rank_and_every_size),
        cmocka_unit_test(one_number_has_shape_none_or_one),
        cmocka_unit_test(a_shape_is_shown_as_in_python),
        cmocka_unit_test(the_image_tower_is_known_by_its_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
