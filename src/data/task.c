/* The division of a data set into tasks by class, by share of the samples, or
 * by domain. */

#include "src/data/task.h"

#include <stdlib.h>
#include <string.h>

mm_split_strategy mm_split_strategy_of(const char *name)
{
    if (!name)
        return MM_SPLIT_NONE;
    if (strcmp(name, "class") == 0)
        return MM_SPLIT_CLASS;
    if (strcmp(name, "data") == 0)
        return MM_SPLIT_DATA;
    MM_ASSERT(strcmp(name, "domain") == 0);
    return MM_SPLIT_DOMAIN;
}

/* A sample's task may also be none (beyond the limit of its class) or all. */
enum { NO_TASK = -1, EVERY_TASK = -2 };

/** What dividing one data set needs to know. */
typedef struct divider {
    const mm_dataset *dataset;
    const mm_split_plan *plan;
    int n_tasks, n_domains;
    int *task_of_class; /* class split: [n_classes] */
} divider;

static int domain_of(const mm_half *half, int64_t i)
{
    return half->domains ? half->domains[i] : 0;
}

static mm_status check_samples(const divider *d, const mm_half *half,
                               const char *name)
{
    for (int64_t i = 0; i < half->n_images; i++) {
        if (half->labels[i] < 0 || half->labels[i] >= d->plan->n_classes)
            return mm_fail(MM_E_VALUE,
                           "%s: %s image %lld has label %d, but the head has "
                           "%d rows",
                           d->dataset->name, name, (long long)i,
                           half->labels[i], d->plan->n_classes);
        int domain = domain_of(half, i);
        if (domain < 0 || domain >= d->n_domains)
            return mm_fail(
                MM_E_VALUE, "%s: %s image %lld is in domain %d of %d",
                d->dataset->name, name, (long long)i, domain, d->n_domains);
    }
    return MM_OK;
}

static mm_status check_dataset(const divider *d)
{
    const mm_dataset *dataset = d->dataset;
    if (dataset->class_names && dataset->n_classes != d->plan->n_classes)
        return mm_fail(MM_E_VALUE,
                       "the head has %d rows, but %s names %d classes",
                       d->plan->n_classes, dataset->name, dataset->n_classes);
    MM_TRY(check_samples(d, &dataset->train, "training"));
    return check_samples(d, &dataset->test, "test");
}

static mm_status count_tasks(divider *d)
{
    const mm_dataset *dataset = d->dataset;
    int asked = d->plan->n_splits;
    d->n_domains = dataset->n_domains > 0 ? dataset->n_domains : 1;
    d->n_tasks = asked > 0 ? asked : 1;
    switch (d->plan->strategy) {
    case MM_SPLIT_NONE:
        if (asked > 1)
            return mm_fail(MM_E_ARG,
                           "%d tasks need a split strategy: class, "
                           "data or domain",
                           asked);
        break;
    case MM_SPLIT_CLASS:
        if (asked > d->plan->n_classes)
            return mm_fail(MM_E_ARG,
                           "%d tasks are more than the %d classes of %s: a "
                           "task would have no class",
                           asked, d->plan->n_classes, dataset->name);
        break;
    case MM_SPLIT_DATA:
        break;
    case MM_SPLIT_DOMAIN:
        if (!dataset->train.domains && !dataset->test.domains)
            return mm_fail(MM_E_ARG,
                           "%s has no domains to split by; magmax_pack "
                           "--domains makes some",
                           dataset->name);
        if (asked > 0 && asked != d->n_domains)
            return mm_fail(MM_E_ARG,
                           "%d tasks were asked for, but %s has %d domains",
                           asked, dataset->name, d->n_domains);
        d->n_tasks = d->n_domains;
        break;
    }
    return MM_OK;
}

/**
 * First class of a task: floor(C / n * t) in double precision, as Python
 * computes it. Rounding may push the end below C (15 classes in 11 tasks); the
 * last task takes what is left, so that no class is lost.
 */
static int first_class(int n_classes, int n_tasks, int task)
{
    if (task == n_tasks)
        return n_classes;
    return (int)((double)n_classes / (double)n_tasks * (double)task);
}

static mm_status fill_classes(const divider *d, int task, mm_task *t)
{
    int n_rows = d->plan->n_classes;
    int lo = 0, hi = n_rows;
    if (d->plan->strategy == MM_SPLIT_CLASS) {
        lo = first_class(n_rows, d->n_tasks, task);
        hi = first_class(n_rows, d->n_tasks, task + 1);
    }
    t->n_classes = hi - lo;
    t->classes = malloc(sizeof *t->classes * (size_t)(hi - lo));
    t->local = malloc(sizeof *t->local * (size_t)n_rows);
    if (!t->classes || !t->local)
        return mm_fail(MM_E_MEMORY, "no memory for the classes of a task");
    for (int label = 0; label < n_rows; label++) {
        bool mine = lo <= label && label < hi;
        t->local[label] = mine ? label - lo : -1;
        if (mine)
            t->classes[label - lo] = label;
    }
    return MM_OK;
}

/** Drop what is beyond the limit of a class and domain. */
static mm_status apply_limit(const divider *d, const mm_half *half,
                             int64_t limit, int *task_of)
{
    int64_t n_groups = (int64_t)d->plan->n_classes * d->n_domains;
    int64_t *seen = calloc((size_t)n_groups, sizeof *seen);
    if (!seen)
        return mm_fail(MM_E_MEMORY, "no memory to count samples");
    for (int64_t i = 0; i < half->n_images; i++) {
        int64_t group =
            (int64_t)domain_of(half, i) * d->plan->n_classes + half->labels[i];
        task_of[i] = limit == 0 || seen[group]++ < limit ? EVERY_TASK : NO_TASK;
    }
    free(seen);
    return MM_OK;
}

/** Of each class, samples floor(t len / n) to floor((t + 1) len / n). */
static mm_status divide_by_data(const divider *d, const mm_half *half,
                                int *task_of)
{
    size_t n_classes = (size_t)d->plan->n_classes;
    int64_t *length = calloc(n_classes, sizeof *length);
    int64_t *seen = calloc(n_classes, sizeof *seen);
    int *task = calloc(n_classes, sizeof *task);
    mm_status st = MM_OK;
    if (!length || !seen || !task) {
        st = mm_fail(MM_E_MEMORY, "no memory to divide samples");
        goto done;
    }
    for (int64_t i = 0; i < half->n_images; i++)
        if (task_of[i] != NO_TASK)
            length[half->labels[i]]++;
    for (int64_t i = 0; i < half->n_images; i++) {
        if (task_of[i] == NO_TASK)
            continue;
        int label = half->labels[i];
        while (seen[label] >= (task[label] + 1) * length[label] / d->n_tasks)
            task[label]++;
        seen[label]++;
        task_of[i] = task[label];
    }
done:
    free(length);
    free(seen);
    free(task);
    return st;
}

static void divide_by_class(const divider *d, const mm_half *half, int *task_of)
{
    for (int64_t i = 0; i < half->n_images; i++)
        if (task_of[i] != NO_TASK)
            task_of[i] = d->task_of_class[half->labels[i]];
}

static void divide_by_domain(const mm_half *half, int *task_of)
{
    for (int64_t i = 0; i < half->n_images; i++)
        if (task_of[i] != NO_TASK)
            task_of[i] = domain_of(half, i);
}

/** Task of every sample of one half. */
static mm_status divide(const divider *d, bool training, int *task_of)
{
    const mm_half *half = training ? &d->dataset->train : &d->dataset->test;
    MM_TRY(apply_limit(
        d, half, training ? d->plan->train_per_class : d->plan->test_per_class,
        task_of));
    switch (d->plan->strategy) {
    case MM_SPLIT_NONE:
        break;
    case MM_SPLIT_CLASS:
        divide_by_class(d, half, task_of);
        break;
    case MM_SPLIT_DATA:
        if (training)
            return divide_by_data(d, half, task_of);
        break;
    case MM_SPLIT_DOMAIN:
        divide_by_domain(half, task_of);
        break;
    }
    return MM_OK;
}

/** Indices of a task's samples, ascending. */
static mm_status collect(const int *task_of, int64_t n_images, int task,
                         int64_t **indices, int64_t *n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n_images; i++)
        count += task_of[i] == task || task_of[i] == EVERY_TASK;
    *n = count;
    if (count == 0)
        return MM_OK;
    *indices = malloc(sizeof **indices * (size_t)count);
    if (!*indices)
        return mm_fail(MM_E_MEMORY, "no memory for the samples of a task");
    count = 0;
    for (int64_t i = 0; i < n_images; i++)
        if (task_of[i] == task || task_of[i] == EVERY_TASK)
            (*indices)[count++] = i;
    return MM_OK;
}

static mm_status fill_samples(const divider *d, bool training,
                              mm_task_list *list)
{
    const mm_half *half = training ? &d->dataset->train : &d->dataset->test;
    bool needed = training ? d->plan->need_train : d->plan->need_test;
    int *task_of = malloc(sizeof *task_of * (size_t)(half->n_images + 1));
    mm_status st = mm_fail(MM_E_MEMORY, "no memory to divide samples");
    if (!task_of)
        return st;
    MM_TRY_GOTO(st, done, divide(d, training, task_of));
    for (int t = 0; t < d->n_tasks; t++) {
        mm_task *task = &list->tasks[t];
        int64_t *n = training ? &task->n_train : &task->n_test;
        MM_TRY_GOTO(st, done,
                    collect(task_of, half->n_images, t,
                            training ? &task->train : &task->test, n));
        if (*n == 0 && needed) {
            st = mm_fail(MM_E_ARG,
                         "task %d of %d (from 0) has no %s samples "
                         "in %s",
                         t, d->n_tasks, training ? "training" : "test",
                         d->dataset->name);
            goto done;
        }
    }
done:
    free(task_of);
    return st;
}

mm_status mm_task_list_init(const mm_dataset *dataset,
                            const mm_split_plan *plan, mm_task_list *list)
{
    MM_ASSERT(plan->n_classes > 0 && plan->n_splits >= 0);
    divider d = {.dataset = dataset, .plan = plan};
    MM_TRY(count_tasks(&d));
    MM_TRY(check_dataset(&d));

    mm_status st = mm_fail(MM_E_MEMORY, "no memory for %d tasks", d.n_tasks);
    d.task_of_class = calloc((size_t)plan->n_classes, sizeof *d.task_of_class);
    list->tasks = calloc((size_t)d.n_tasks, sizeof *list->tasks);
    list->n_tasks = list->tasks ? d.n_tasks : 0;
    if (!d.task_of_class || !list->tasks)
        goto done;
    for (int t = 0; t < d.n_tasks; t++) {
        MM_TRY_GOTO(st, done, fill_classes(&d, t, &list->tasks[t]));
        for (int i = 0; i < list->tasks[t].n_classes; i++)
            d.task_of_class[list->tasks[t].classes[i]] = t;
    }
    MM_TRY_GOTO(st, done, fill_samples(&d, true, list));
    MM_TRY_GOTO(st, done, fill_samples(&d, false, list));
done:
    free(d.task_of_class);
    if (st != MM_OK)
        mm_task_list_clear(list);
    return st;
}

void mm_task_list_clear(mm_task_list *list)
{
    for (int t = 0; t < list->n_tasks; t++) {
        free(list->tasks[t].classes);
        free(list->tasks[t].local);
        free(list->tasks[t].train);
        free(list->tasks[t].test);
    }
    free(list->tasks);
    *list = (mm_task_list){0};
}
