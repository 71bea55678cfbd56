/* Class names of a benchmark, from the tables in benchmark_tables.c and from
 * folder names. */

#include "src/data/benchmarks.h"

#include "src/base/names.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

mm_status mm_benchmark_find(const char *name, const mm_benchmark **benchmark)
{
    const char *names[MM_N_BENCHMARKS];
    for (int i = 0; i < MM_N_BENCHMARKS; i++) {
        names[i] = mm_benchmarks[i].name;
        if (strcmp(name, names[i]) == 0) {
            *benchmark = &mm_benchmarks[i];
            return MM_OK;
        }
    }
    return mm_names_unknown("benchmark", name, names, MM_N_BENCHMARKS);
}

static size_t n_dropped(mm_name_rule rule)
{
    return rule == MM_NAME_BLANKS_AFTER_2   ? 2
           : rule == MM_NAME_BLANKS_AFTER_4 ? 4
                                            : 0;
}

/* `name` has room for the folder's. False where nothing would be left. */
static bool apply_rule(mm_name_rule rule, const char *folder, char *name)
{
    if (strlen(folder) <= n_dropped(rule))
        return false;
    strcpy(name, folder + n_dropped(rule));
    for (char *c = name; rule != MM_NAME_AS_IS && *c; c++)
        if (*c == '_')
            *c = ' ';
    return true;
}

mm_status mm_benchmark_name_class(const mm_benchmark *benchmark,
                                  const char *folder, char **name)
{
    const mm_benchmark *b = benchmark;
    if (b->class_folders.n > 0 && b->class_names.n > 0) {
        for (int i = 0; i < b->class_folders.n; i++) {
            if (strcmp(b->class_folders.texts[i], folder) == 0) {
                *name = strdup(b->class_names.texts[i]);
                return *name ? MM_OK
                             : mm_fail(MM_E_MEMORY, "no memory for a name");
            }
        }
        mm_names_unknown("folder", folder, b->class_folders.texts,
                         b->class_folders.n);
        return mm_fail_within(MM_E_VALUE, "%s", b->name);
    }
    char *made = malloc(strlen(folder) + 1);
    if (!made)
        return mm_fail(MM_E_MEMORY, "no memory for a name");
    if (!apply_rule(b->name_rule, folder, made)) {
        free(made);
        return mm_fail(MM_E_VALUE, "the folder '%.80s' is not a class of %s",
                       folder, b->name);
    }
    *name = made;
    return MM_OK;
}

mm_status mm_benchmark_list_classes(const mm_benchmark *benchmark,
                                    char ***names, int *n_names)
{
    const mm_benchmark *b = benchmark;
    mm_text_list list =
        b->class_names.n > 0 ? b->class_names : b->class_folders;
    mm_name_rule rule = b->class_names.n > 0 ? MM_NAME_AS_IS : b->name_rule;
    if (list.n == 0)
        return mm_fail(
            MM_E_ARG,
            "the class names of %s are those of its folders: give its "
            "images, or a file of names",
            b->name);
    size_t n_bytes = (size_t)list.n * sizeof(char *);
    for (int i = 0; i < list.n; i++)
        n_bytes += strlen(list.texts[i]) + 1;
    char **made = malloc(n_bytes);
    if (!made)
        return mm_fail(MM_E_MEMORY, "no memory for the names of classes");
    char *to = (char *)(made + list.n);
    for (int i = 0; i < list.n; i++) {
        made[i] = to;
        bool named = apply_rule(rule, list.texts[i], to);
        MM_ASSERT(named); /* our own tables */
        to += strlen(to) + 1;
    }
    *names = made;
    *n_names = list.n;
    return MM_OK;
}
