/* Prints the tables of benchmarks as JSON, for test_benchmarks.py; with
 * "name BENCHMARK FOLDER" a class's name. A failure exits with its status. */
#include "src/data/benchmarks.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *texts_of(const char *const *texts, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(array, json_string(texts[i]));
    return array;
}

static json_t *list_of(mm_text_list list)
{
    return texts_of(list.texts, list.n);
}

static json_t *order_of(mm_order order)
{
    json_t *array = json_array();
    for (int i = 0; i < order.n; i++)
        json_array_append_new(array, json_integer(order.places[i]));
    return array;
}

static json_t *describe(const mm_benchmark *b)
{
    char **names;
    int n_names;
    json_t *classes = NULL;
    if (mm_benchmark_list_classes(b, &names, &n_names) == MM_OK) {
        classes = texts_of((const char *const *)names, n_names);
        free(names);
    }
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "prompts", list_of(b->prompts),
        "class_names", list_of(b->class_names), "class_folders",
        list_of(b->class_folders), "domains", list_of(b->domains),
        "class_order", order_of(b->class_order), "domain_order",
        order_of(b->domain_order), "classes", classes ? classes : json_null());
}

static int name_class(const char *benchmark_name, const char *folder)
{
    const mm_benchmark *benchmark;
    char *name;
    mm_status st = mm_benchmark_find(benchmark_name, &benchmark);
    if (st == MM_OK)
        st = mm_benchmark_name_class(benchmark, folder, &name);
    printf("%s", st == MM_OK ? name : mm_fail_message());
    if (st == MM_OK)
        free(name);
    return (int)st;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "name") == 0)
        return name_class(argv[2], argv[3]);
    json_t *all = json_object();
    for (int i = 0; i < MM_N_BENCHMARKS; i++)
        json_object_set_new(all, mm_benchmarks[i].name,
                            describe(&mm_benchmarks[i]));
    json_dumpf(all, stdout, JSON_COMPACT);
    json_decref(all);
    return 0;
}
