/* Opening a data set by what the user typed: a built-in name, a file or a
 * folder. */

#include "src/data/open_data.h"

#include "comm/check_same.h"
#include "io/file.h"
#include "src/base/names.h"
#include "src/data/benchmarks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_CLASSES = 10, N_FOLDERS = 3, N_BUILTINS = 2 };

/** A data set that is known by name: four IDX files. */
typedef struct builtin {
    const char *name;
    const char *folders[N_FOLDERS]; /* below the location, in this order */
    const char *installed;          /* without a location; NULL: needs one */
    const char *package;            /* Debian's, that puts it there */
} builtin;

static const builtin builtins[N_BUILTINS] = {
    {.name = "FashionMNIST",
     .folders = {".", "FashionMNIST/raw", "fashion-mnist"},
     .installed = "/usr/share/datasets/fashion-mnist",
     .package = "dataset-fashion-mnist"},
    {.name = "MNIST", .folders = {".", "MNIST/raw", "mnist"}},
};

static bool holds_idx(const char *folder)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/train-images-idx3-ubyte", folder);
    if (mm_file_exists(path))
        return true;
    snprintf(path, sizeof path, "%s/train-images-idx3-ubyte.gz", folder);
    return mm_file_exists(path);
}

/** Find the folder of the IDX files. */
static mm_status find_folder(const builtin *b, const char *location,
                             char folder[4100])
{
    if (!location && !b->installed)
        return mm_fail(MM_E_ARG,
                       "%s needs --data-location, the folder of its IDX files",
                       b->name);
    if (!location) {
        snprintf(folder, 4100, "%s", b->installed);
        if (holds_idx(folder))
            return MM_OK;
        return mm_fail(MM_E_IO,
                       "cannot find %s in %s: install Debian's package %s, or "
                       "name its folder with --data-location",
                       b->name, folder, b->package);
    }
    for (int i = 0; i < N_FOLDERS; i++) {
        snprintf(folder, 4100, "%.3900s%s%s", location, i ? "/" : "",
                 i ? b->folders[i] : "");
        if (holds_idx(folder))
            return MM_OK;
    }
    return mm_fail(MM_E_IO,
                   "cannot find %s in %s: no train-images-idx3-ubyte[.gz] "
                   "there, in %s or in %s%s%s",
                   b->name, location, b->folders[1], b->folders[2],
                   b->package ? "; Debian's package is " : "",
                   b->package ? b->package : "");
}

static mm_status set_names(mm_dataset *dataset, const builtin *b)
{
    const mm_benchmark *benchmark;
    MM_TRY(mm_benchmark_find(b->name, &benchmark));
    MM_TRY(mm_names_copy(benchmark->class_names.texts, benchmark->class_names.n,
                         &dataset->class_names));
    char *name = strdup(b->name);
    if (!name)
        return mm_fail(MM_E_MEMORY, "no memory for the name of %s", b->name);
    free(dataset->name);
    dataset->name = name;
    return MM_OK;
}

static mm_status open_builtin(const builtin *b, const char *location,
                              mm_dataset **dataset)
{
    char folder[4100];
    mm_dataset *opened = NULL;
    MM_TRY(find_folder(b, location, folder));
    MM_TRY(mm_dataset_open_idx(folder, &opened));
    mm_status st = MM_OK;
    if (opened->n_classes != N_CLASSES)
        st = mm_fail(MM_E_VALUE, "%s has labels up to %d, %s has %d classes",
                     folder, opened->n_classes - 1, b->name, N_CLASSES);
    else
        st = set_names(opened, b);
    if (st != MM_OK) {
        mm_dataset_close(&opened);
        return st;
    }
    *dataset = opened;
    return MM_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/** Whether a name leads to a folder; all ranks must take the same way. */
static mm_status is_folder(mm_comm *comm, const char *name, bool *yes)
{
    struct stat info;
    *yes = stat(name, &info) == 0 && S_ISDIR(info.st_mode);
    return comm ? mm_comm_broadcast(comm, yes, sizeof *yes, 0) : MM_OK;
}

mm_status mm_dataset_open(mm_comm *comm, const char *name, const char *location,
                          mm_dataset **dataset)
{
    MM_TRY(MM_CHECK_CALL(comm));
    bool folder;
    const char *known[N_BUILTINS];
    for (int i = 0; i < N_BUILTINS; i++) {
        known[i] = builtins[i].name;
        if (strcmp(name, known[i]) == 0)
            return open_builtin(&builtins[i], location, dataset);
    }
    MM_TRY(is_folder(comm, name, &folder));
    if (folder)
        return mm_dataset_open_folder(comm, name, dataset);
    if (access(name, F_OK) == 0)
        return mm_dataset_open_file(name, dataset);
    if (strchr(name, '/') || ends_with(name, ".h5") || ends_with(name, ".npz"))
        return mm_fail_errno("cannot open %s", name);
    mm_names_unknown("data set", name, known, N_BUILTINS);
    return mm_fail(MM_E_ARG,
                   "%s, or the path of a .h5 or .npz file or a folder",
                   mm_fail_message());
}
