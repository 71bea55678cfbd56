/* How a data set is divided into tasks. */
#include "src/data/task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 400 };

/** A data set of labels and domains; its pixels are not used. */
typedef struct fixture {
    int32_t train_labels[MOST], train_domains[MOST];
    int32_t test_labels[MOST], test_domains[MOST];
    mm_dataset dataset;
    mm_task_list list;
} fixture;

static char name[] = "data.npz";

/** Labels go round: sample i has label i % n_classes. */
static void fill(fixture *f, int n_classes, int n_train, int n_test)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < MOST; i++)
        f->train_labels[i] = f->test_labels[i] = i % n_classes;
    f->dataset = (mm_dataset){
        .name = name,
        .train = {.n_images = n_train, .labels = f->train_labels},
        .test = {.n_images = n_test, .labels = f->test_labels},
        .n_classes = n_classes,
        .n_domains = 1,
    };
}

/** Domains change every n_classes samples. */
static void fill_domains(fixture *f, int n_domains)
{
    int n_classes = f->dataset.n_classes;
    for (int i = 0; i < MOST; i++)
        f->train_domains[i] = f->test_domains[i] = i / n_classes % n_domains;
    f->dataset.train.domains = f->train_domains;
    f->dataset.test.domains = f->test_domains;
    f->dataset.n_domains = n_domains;
}

static mm_split_plan plan_of(mm_split_strategy strategy, int n_splits,
                             int n_classes)
{
    return (mm_split_plan){.strategy = strategy,
                           .n_splits = n_splits,
                           .n_classes = n_classes,
                           .need_train = true,
                           .need_test = true};
}

static void make(fixture *f, mm_split_plan plan)
{
    mm_status st = mm_task_list_init(&f->dataset, &plan, &f->list);
    if (st != MM_OK)
        fail_msg("%s", mm_fail_message());
}

static void assert_fails(fixture *f, mm_split_plan plan, mm_status status,
                         const char *fragment)
{
    assert_int_equal(mm_task_list_init(&f->dataset, &plan, &f->list), status);
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
    assert_null(f->list.tasks);
    assert_int_equal(f->list.n_tasks, 0);
}

static void assert_indices(const int64_t *got, int64_t n_got,
                           const int64_t *want, int64_t n_want)
{
    assert_int_equal(n_got, n_want);
    for (int64_t i = 0; i < n_want; i++)
        assert_int_equal(got[i], want[i]);
}

static void no_strategy_is_one_task_with_everything(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 4, 10, 6);
    make(&f, plan_of(MM_SPLIT_NONE, 0, 4));
    assert_int_equal(f.list.n_tasks, 1);
    const mm_task *task = &f.list.tasks[0];
    assert_int_equal(task->n_classes, 4);
    assert_int_equal(task->n_train, 10);
    assert_int_equal(task->n_test, 6);
    for (int i = 0; i < 10; i++)
        assert_int_equal(task->train[i], i);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(task->classes[i], i);
        assert_int_equal(task->local[i], i);
    }
    mm_task_list_clear(&f.list);
    assert_null(f.list.tasks);
}

static void class_split_of_uneven_counts_is_as_in_python(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 10, 30, 20);
    make(&f, plan_of(MM_SPLIT_CLASS, 3, 10));
    const int first[4] = {0, 3, 6, 10};
    assert_int_equal(f.list.n_tasks, 3);
    for (int t = 0; t < 3; t++) {
        const mm_task *task = &f.list.tasks[t];
        assert_int_equal(task->n_classes, first[t + 1] - first[t]);
        for (int i = 0; i < task->n_classes; i++)
            assert_int_equal(task->classes[i], first[t] + i);
        for (int label = 0; label < 10; label++) {
            bool mine = first[t] <= label && label < first[t + 1];
            assert_int_equal(task->local[label], mine ? label - first[t] : -1);
        }
        assert_int_equal(task->n_train, 3 * task->n_classes);
        assert_int_equal(task->n_test, 2 * task->n_classes);
        for (int64_t i = 0; i < task->n_train; i++)
            assert_true(task->local[f.train_labels[task->train[i]]] >= 0);
        for (int64_t i = 1; i < task->n_train; i++)
            assert_true(task->train[i - 1] < task->train[i]);
    }
    mm_task_list_clear(&f.list);
}

static void
class_split_keeps_every_class_where_rounding_would_lose_one(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 15, 30, 30);
    make(&f, plan_of(MM_SPLIT_CLASS, 11, 15));
    int n = 0;
    for (int t = 0; t < 11; t++)
        for (int i = 0; i < f.list.tasks[t].n_classes; i++)
            assert_int_equal(f.list.tasks[t].classes[i], n++);
    assert_int_equal(n, 15);
    mm_task_list_clear(&f.list);
}

static void data_split_divides_each_class_and_tests_on_all(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 10, 6); /* 5 samples per class: 0 2 4 6 8 and 1 3 5 7 9 */
    make(&f, plan_of(MM_SPLIT_DATA, 3, 2));
    const int64_t first[] = {0, 1}, second[] = {2, 3, 4, 5},
                  third[] = {6, 7, 8, 9};
    const mm_task *t = f.list.tasks;
    assert_int_equal(f.list.n_tasks, 3);
    assert_indices(t[0].train, t[0].n_train, first, 2);
    assert_indices(t[1].train, t[1].n_train, second, 4);
    assert_indices(t[2].train, t[2].n_train, third, 4);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(t[i].n_test, 6);
        assert_int_equal(t[i].n_classes, 2);
    }
    mm_task_list_clear(&f.list);
}

static void data_split_of_fewer_samples_than_tasks_fails(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 4, 4);
    assert_fails(&f, plan_of(MM_SPLIT_DATA, 3, 2), MM_E_ARG,
                 "task 0 of 3 (from 0) has no training samples in data.npz");
}

static void domain_split_makes_a_task_of_each_domain(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 8, 4);
    fill_domains(&f, 2);
    make(&f, plan_of(MM_SPLIT_DOMAIN, 0, 2));
    const int64_t train[2][4] = {{0, 1, 4, 5}, {2, 3, 6, 7}};
    const int64_t test[2][2] = {{0, 1}, {2, 3}};
    assert_int_equal(f.list.n_tasks, 2);
    for (int t = 0; t < 2; t++) {
        const mm_task *task = &f.list.tasks[t];
        assert_indices(task->train, task->n_train, train[t], 4);
        assert_indices(task->test, task->n_test, test[t], 2);
        assert_int_equal(task->n_classes, 2);
    }
    mm_task_list_clear(&f.list);
}

static void domain_split_into_another_number_fails(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 8, 4);
    fill_domains(&f, 2);
    assert_fails(&f, plan_of(MM_SPLIT_DOMAIN, 3, 2), MM_E_ARG,
                 "3 tasks were asked for, but data.npz has 2 domains");
}

static void domain_split_without_domains_fails(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 8, 4);
    assert_fails(&f, plan_of(MM_SPLIT_DOMAIN, 0, 2), MM_E_ARG,
                 "data.npz has no domains");
}

static void a_limit_keeps_the_first_of_each_class_and_domain(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 16, 8);
    fill_domains(&f, 2);
    mm_split_plan plan = plan_of(MM_SPLIT_DOMAIN, 0, 2);
    plan.train_per_class = 1;
    make(&f, plan);
    const int64_t train[2][2] = {{0, 1}, {2, 3}};
    for (int t = 0; t < 2; t++) {
        assert_indices(f.list.tasks[t].train, f.list.tasks[t].n_train, train[t],
                       2);
        assert_int_equal(f.list.tasks[t].n_test, 4);
    }
    mm_task_list_clear(&f.list);
}

static void limits_apply_before_dividing_and_to_each_half_alone(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 20, 20);
    mm_split_plan plan = plan_of(MM_SPLIT_DATA, 2, 2);
    plan.train_per_class = 4;
    plan.test_per_class = 3;
    make(&f, plan);
    const int64_t first[] = {0, 1, 2, 3}, second[] = {4, 5, 6, 7};
    assert_indices(f.list.tasks[0].train, f.list.tasks[0].n_train, first, 4);
    assert_indices(f.list.tasks[1].train, f.list.tasks[1].n_train, second, 4);
    assert_int_equal(f.list.tasks[1].n_test, 6);
    mm_task_list_clear(&f.list);
}

static void more_tasks_than_classes_fail(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 3, 9, 9);
    assert_fails(&f, plan_of(MM_SPLIT_CLASS, 4, 3), MM_E_ARG,
                 "4 tasks are more than the 3 classes");
}

static void
a_task_without_samples_fails_only_where_they_are_needed(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 8, 8); /* the head has two rows more than there are labels */
    mm_split_plan plan = plan_of(MM_SPLIT_CLASS, 2, 4);
    assert_fails(&f, plan, MM_E_ARG, "task 1 of 2 (from 0) has no training");
    plan.need_train = false;
    assert_fails(&f, plan, MM_E_ARG, "task 1 of 2 (from 0) has no test");
    plan.need_test = false;
    make(&f, plan);
    assert_int_equal(f.list.tasks[1].n_train, 0);
    assert_int_equal(f.list.tasks[1].n_test, 0);
    assert_int_equal(f.list.tasks[0].n_train, 8);
    mm_task_list_clear(&f.list);
}

static void an_empty_test_half_fails_only_where_it_is_needed(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 8, 0);
    mm_split_plan plan = plan_of(MM_SPLIT_NONE, 1, 2);
    assert_fails(&f, plan, MM_E_ARG, "has no test samples in data.npz");
    plan.need_test = false;
    make(&f, plan);
    assert_int_equal(f.list.tasks[0].n_test, 0);
    mm_task_list_clear(&f.list);
}

static void several_tasks_without_a_strategy_fail(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 2, 8, 8);
    assert_fails(&f, plan_of(MM_SPLIT_NONE, 2, 2), MM_E_ARG,
                 "2 tasks need a split strategy");
}

static void a_label_beyond_the_head_fails_with_its_index(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 4, 8, 8);
    assert_fails(&f, plan_of(MM_SPLIT_NONE, 0, 3), MM_E_VALUE,
                 "data.npz: training image 3 has label 3, but the head has 3 "
                 "rows");
    f.dataset.train.n_images = 3;
    assert_fails(&f, plan_of(MM_SPLIT_NONE, 0, 3), MM_E_VALUE,
                 "data.npz: test image 3 has label 3");
}

static void a_head_of_another_number_of_named_classes_fails(void **state)
{
    (void)state;
    fixture f;
    fill(&f, 4, 8, 8);
    char cat[] = "cat", dog[] = "dog", owl[] = "owl", yak[] = "yak";
    char *names[] = {cat, dog, owl, yak};
    make(&f, plan_of(MM_SPLIT_NONE, 0, 5)); /* unnamed: rows to spare */
    mm_task_list_clear(&f.list);
    f.dataset.class_names = names;
    assert_fails(&f, plan_of(MM_SPLIT_NONE, 0, 5), MM_E_VALUE,
                 "the head has 5 rows, but data.npz names 4 classes");
    make(&f, plan_of(MM_SPLIT_NONE, 0, 4));
    mm_task_list_clear(&f.list);
}

static void strategies_have_names(void **state)
{
    (void)state;
    assert_int_equal(mm_split_strategy_of(NULL), MM_SPLIT_NONE);
    assert_int_equal(mm_split_strategy_of("class"), MM_SPLIT_CLASS);
    assert_int_equal(mm_split_strategy_of("data"), MM_SPLIT_DATA);
    assert_int_equal(mm_split_strategy_of("domain"), MM_SPLIT_DOMAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_strategy_is_one_task_with_everything),
        cmocka_unit_test(class_split_of_uneven_counts_is_as_in_python),
        cmocka_unit_test(
            class_split_keeps_every_class_where_rounding_would_lose_one),
        cmocka_unit_test(data_split_divides_each_class_and_tests_on_all),
        cmocka_unit_test(data_split_of_fewer_samples_than_tasks_fails),
        cmocka_unit_test(domain_split_makes_a_task_of_each_domain),
        cmocka_unit_test(domain_split_into_another_number_fails),
        cmocka_unit_test(domain_split_without_domains_fails),
        cmocka_unit_test(a_limit_keeps_the_first_of_each_class_and_domain),
        cmocka_unit_test(limits_apply_before_dividing_and_to_each_half_alone),
        cmocka_unit_test(more_tasks_than_classes_fail),
        cmocka_unit_test(
            a_task_without_samples_fails_only_where_they_are_needed),
        cmocka_unit_test(an_empty_test_half_fails_only_where_it_is_needed),
        cmocka_unit_test(several_tasks_without_a_strategy_fail),
        cmocka_unit_test(a_label_beyond_the_head_fails_with_its_index),
        cmocka_unit_test(a_head_of_another_number_of_named_classes_fails),
        cmocka_unit_test(strategies_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
