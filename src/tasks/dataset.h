#ifndef MAGMAX_SRC_TASKS_DATASET_H
#define MAGMAX_SRC_TASKS_DATASET_H

#include "io/dataset_file.h"

/**
 * Open a data set by built-in name ("FashionMNIST", found under `location`, or
 * where Debian's package puts it when `location` is NULL) or by the path of a
 * packed .h5 or an .npz file.
 *
 * Memory   Gives *dataset, freed by mm_dataset_close.
 * Ranks    Local: every rank opens it, then agrees.
 * Errors   MM_E_ARG for a name that is neither (known ones and the nearest are
 *          listed); else as mm_dataset_file_open.
 */
mm_status mm_dataset_open(const char *name, const char *location,
                          mm_dataset **dataset);

#endif
