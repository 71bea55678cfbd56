#ifndef MAGMAX_SRC_DATA_OPEN_DATA_H
#define MAGMAX_SRC_DATA_OPEN_DATA_H

#include "io/dataset/dataset.h"

/**
 * Open a data set by built-in name ("FashionMNIST", found under `location`, or
 * where Debian's package puts it when `location` is NULL) or by the path of a
 * packed .h5 file, an .npz file or a folder of class folders.
 *
 * Memory   Gives *dataset, freed by mm_dataset_close.
 * Ranks    Collective over `comm`, but not agreed: every rank opens a file,
 *          rank 0 scans a folder for all. NULL: this rank alone.
 * Errors   MM_E_ARG for a name that is neither (known ones and the nearest are
 *          listed); else as mm_dataset_open_file and mm_dataset_open_folder.
 */
mm_status mm_dataset_open(mm_comm *comm, const char *name, const char *location,
                          mm_dataset **dataset);

#endif
