/* Which tensors a merge folds, which it copies, and which rank owns what. */
#include "src/merge/merge_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

typedef struct row {
    const char *name;
    int64_t rows, columns;
} row;

static const row conv = {"visual.conv1.weight", 4, 3};
static const row proj = {"visual.proj", 5, 1};
static const row text = {"text_projection", 2, 7};
static const row scale = {"logit_scale", 1, 1};

static void fill(mm_tensor_table *table, const row *rows, int n)
{
    for (int i = 0; i < n; i++) {
        int64_t shape[2] = {rows[i].rows, rows[i].columns};
        assert_int_equal(mm_tensor_table_add(table, rows[i].name, 2, shape),
                         MM_OK);
    }
}

typedef struct fixture {
    mm_tensor_table pretrained, a, b;
    mm_merge_plan plan;
} fixture;

static mm_status make(fixture *f)
{
    mm_merge_source pretrained = {"zero.h5", &f->pretrained};
    mm_merge_source inputs[2] = {{"a.h5", &f->a}, {"b.h5", &f->b}};
    return mm_merge_plan_init(&f->plan, &pretrained, inputs, 2);
}

static void clear(fixture *f)
{
    mm_merge_plan_clear(&f->plan);
    mm_tensor_table_clear(&f->pretrained);
    mm_tensor_table_clear(&f->a);
    mm_tensor_table_clear(&f->b);
}

/** The plan is refused in a message that holds both fragments. */
static void assert_refused(fixture *f, const char *file, const char *tensor)
{
    assert_int_equal(make(f), MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), file));
    assert_non_null(strstr(mm_fail_message(), tensor));
    clear(f);
}

static void plan_folds_what_inputs_hold_and_copies_the_rest(void **state)
{
    (void)state;
    fixture f = {0};
    fill(&f.pretrained, (row[]){scale, conv, text, proj}, 4);
    fill(&f.a, (row[]){proj, conv}, 2);
    fill(&f.b, (row[]){conv, proj}, 2);
    assert_int_equal(make(&f), MM_OK);

    assert_int_equal(f.plan.folded.n_tensors, 2);
    assert_string_equal(f.plan.folded.tensors[0].name, conv.name);
    assert_string_equal(f.plan.folded.tensors[1].name, proj.name);
    const mm_merge_run expected[] = {{0, 1, 0, false},
                                     {1, 13, 0, true},
                                     {13, 27, 12, false},
                                     {27, 32, 12, true}};
    assert_int_equal(f.plan.n_runs, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(f.plan.runs[i].lo, expected[i].lo);
        assert_int_equal(f.plan.runs[i].hi, expected[i].hi);
        assert_int_equal(f.plan.runs[i].folded_lo, expected[i].folded_lo);
        assert_int_equal(f.plan.runs[i].folded, expected[i].folded);
    }
    clear(&f);
}

static void plan_folds_text_tensors_that_all_inputs_hold(void **state)
{
    (void)state;
    fixture f = {0};
    fill(&f.pretrained, (row[]){conv, text, scale}, 3);
    fill(&f.a, (row[]){conv, text}, 2);
    fill(&f.b, (row[]){conv, text}, 2);
    assert_int_equal(make(&f), MM_OK);
    assert_int_equal(f.plan.folded.n_elems, 12 + 14);
    clear(&f);
}

static void plan_refuses_a_missing_visual_tensor(void **state)
{
    (void)state;
    fixture f = {0};
    fill(&f.pretrained, (row[]){conv, proj}, 2);
    fill(&f.a, (row[]){conv, proj}, 2);
    fill(&f.b, (row[]){conv}, 1);
    assert_refused(&f, "b.h5", proj.name);
}

static void plan_refuses_a_visual_tensor_that_all_inputs_lack(void **state)
{
    (void)state;
    fixture f = {0};
    fill(&f.pretrained, (row[]){conv, proj}, 2);
    fill(&f.a, (row[]){conv}, 1);
    fill(&f.b, (row[]){conv}, 1);
    assert_refused(&f, "a.h5", proj.name);
}

static void plan_refuses_an_unexpected_tensor(void **state)
{
    (void)state;
    const row unexpected[] = {proj, text};
    for (int i = 0; i < 2; i++) {
        fixture f = {0};
        fill(&f.pretrained, (row[]){conv}, 1);
        fill(&f.a, (row[]){conv}, 1);
        fill(&f.b, (row[]){conv, unexpected[i]}, 2);
        assert_refused(&f, "b.h5", unexpected[i].name);
    }
}

static void plan_refuses_a_text_tensor_that_some_inputs_hold(void **state)
{
    (void)state;
    fixture f = {0};
    fill(&f.pretrained, (row[]){conv, text}, 2);
    fill(&f.a, (row[]){conv}, 1);
    fill(&f.b, (row[]){conv, text}, 2);
    assert_refused(&f, "a.h5", text.name);
}

static void plan_refuses_another_shape(void **state)
{
    (void)state;
    const row turned = {"visual.conv1.weight", 3, 4};
    fixture f = {0};
    fill(&f.pretrained, (row[]){conv}, 1);
    fill(&f.a, (row[]){conv}, 1);
    fill(&f.b, &turned, 1);
    assert_refused(&f, "b.h5", "[3, 4]");
}

static void plan_refuses_inputs_without_tensors(void **state)
{
    (void)state;
    fixture f = {0};
    fill(&f.pretrained, (row[]){text}, 1);
    assert_refused(&f, "a.h5", "no tensor");
}

/** Ranks' ranges meet, in order, from the first element to the last. */
static void assert_covered(const mm_merge_plan *plan, int n_ranks)
{
    int64_t at = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        mm_range own = mm_merge_plan_range(plan, rank, n_ranks);
        assert_int_equal(own.lo, at);
        assert_true(own.hi >= own.lo);
        at = own.hi;
    }
    assert_int_equal(at, plan->output->n_elems);
}

static void ranges_cover_every_element_once(void **state)
{
    (void)state;
    fixture f = {0};
    fill(&f.pretrained, (row[]){scale, conv, text, proj}, 4);
    fill(&f.a, (row[]){proj, conv}, 2);
    fill(&f.b, (row[]){conv, proj}, 2);
    assert_int_equal(make(&f), MM_OK);
    for (int n_ranks = 1; n_ranks <= 70; n_ranks++)
        assert_covered(&f.plan, n_ranks);
    clear(&f);
}

static void ranges_divide_the_work_not_the_elements(void **state)
{
    (void)state;
    const row image = {"visual.proj", 1000, 1000};
    const row words = {"token_embedding.weight", 1000, 1000};
    fixture f = {0};
    fill(&f.pretrained, (row[]){image, words}, 2);
    fill(&f.a, &image, 1);
    fill(&f.b, &image, 1);
    assert_int_equal(make(&f), MM_OK);
    /* Two inputs: 4 numbers move for an element folded, 2 for one copied. */
    assert_int_equal(mm_merge_plan_range(&f.plan, 0, 3).hi, 500000);
    assert_int_equal(mm_merge_plan_range(&f.plan, 1, 3).hi, 1000000);
    clear(&f);
}

static void fingerprints_tell_plans_apart(void **state)
{
    (void)state;
    fixture one = {0}, same = {0}, other = {0};
    fill(&one.pretrained, (row[]){conv, text}, 2);
    fill(&same.pretrained, (row[]){conv, text}, 2);
    fill(&other.pretrained, (row[]){conv, text}, 2);
    fixture *all[] = {&one, &same, &other};
    for (int i = 0; i < 3; i++) {
        fill(&all[i]->a, (row[]){conv, text}, i == 2 ? 2 : 1);
        fill(&all[i]->b, (row[]){conv, text}, i == 2 ? 2 : 1);
        assert_int_equal(make(all[i]), MM_OK);
    }
    uint64_t mark = mm_merge_plan_fingerprint(&one.plan);
    assert_true(mark == mm_merge_plan_fingerprint(&same.plan));
    assert_true(mark != mm_merge_plan_fingerprint(&other.plan));
    for (int i = 0; i < 3; i++)
        clear(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_folds_what_inputs_hold_and_copies_the_rest),
        cmocka_unit_test(plan_folds_text_tensors_that_all_inputs_hold),
        cmocka_unit_test(plan_refuses_a_missing_visual_tensor),
        cmocka_unit_test(plan_refuses_a_visual_tensor_that_all_inputs_lack),
        cmocka_unit_test(plan_refuses_an_unexpected_tensor),
        cmocka_unit_test(plan_refuses_a_text_tensor_that_some_inputs_hold),
        cmocka_unit_test(plan_refuses_another_shape),
        cmocka_unit_test(plan_refuses_inputs_without_tensors),
        cmocka_unit_test(ranges_cover_every_element_once),
        cmocka_unit_test(ranges_divide_the_work_not_the_elements),
        cmocka_unit_test(fingerprints_tell_plans_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
