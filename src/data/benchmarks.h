#ifndef MAGMAX_SRC_DATA_BENCHMARKS_H
#define MAGMAX_SRC_DATA_BENCHMARKS_H

#include "src/base/status.h"

#include <stdint.h>

/** How a benchmark names a class after its folder. */
typedef enum mm_name_rule {
    MM_NAME_AS_IS,
    MM_NAME_BLANKS,         /* underscores become blanks               */
    MM_NAME_BLANKS_AFTER_2, /* likewise, without the first two bytes   */
    MM_NAME_BLANKS_AFTER_4  /* likewise, without the first four        */
} mm_name_rule;

typedef struct mm_text_list {
    int n;
    const char *const *texts;
} mm_text_list;

typedef struct mm_order {
    int n;
    const int16_t *places;
} mm_order;

/** What is known about a benchmark without its files. An unknown list has
 * n = 0. */
typedef struct mm_benchmark {
    const char *name;
    mm_text_list prompts;       /* "{}" stands for the class name           */
    mm_text_list class_names;   /* by label                                 */
    mm_text_list class_folders; /* by label; names follow from them where
                                   class_names is not known                 */
    mm_text_list domains;
    mm_order class_order;  /* of a class split; none: by label              */
    mm_order domain_order; /* of a domain split: indices into domains       */
    mm_name_rule name_rule;
} mm_benchmark;

enum { MM_N_BENCHMARKS = 17 };
extern const mm_benchmark mm_benchmarks[MM_N_BENCHMARKS];

/** Find a benchmark by its name; MM_E_ARG for an unknown one (known ones and
 * the nearest are listed). */
mm_status mm_benchmark_find(const char *name, const mm_benchmark **benchmark);

/**
 * The name of the class whose images lie in a folder.
 *
 * Memory   folder: its last part. Gives *name (free()).
 * Ranks    Local.
 * Errors   MM_E_VALUE for a folder that is not one of the benchmark's;
 *          MM_E_MEMORY.
 */
mm_status mm_benchmark_name_class(const mm_benchmark *benchmark,
                                  const char *folder, char **name);

/**
 * The names of all classes, by label, without the images.
 *
 * Memory   Gives *names, one block (free()).
 * Ranks    Local.
 * Errors   MM_E_ARG where they are only known from the images' folders;
 *          MM_E_MEMORY.
 */
mm_status mm_benchmark_list_classes(const mm_benchmark *benchmark,
                                    char ***names, int *n_names);

#endif
