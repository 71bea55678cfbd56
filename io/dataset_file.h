#ifndef MAGMAX_IO_DATASET_FILE_H
#define MAGMAX_IO_DATASET_FILE_H

#include "io/image.h"
#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** The training or the test half of a data set, in its own order. */
typedef struct mm_split {
    int64_t n_images;
    int64_t height, width;
    int channels;          /* 1 or 3                               */
    const uint8_t *pixels; /* [n_images, height, width, channels]  */
    int32_t *labels;       /* [n_images], each in [0, n_classes)   */
    int32_t *domains;      /* [n_images], or NULL: all in domain 0 */
} mm_split;

/**
 * A labelled data set of images in memory, or mapped from a file so that the
 * ranks of a host share its pages.
 */
typedef struct mm_dataset {
    char *name; /* for messages: the path or the built-in name */
    mm_split train, test;
    int n_classes;      /* 1 + the largest label, or the number of names */
    char **class_names; /* [n_classes] or NULL */
    int n_domains;
    char **domain_names; /* [n_domains] or NULL */
    void *storage;       /* owns the pixels; private to io */
    void (*release)(void *storage);
} mm_dataset;

/**
 * Open a file of images by content: a packed data set (HDF5), or .npz with
 * train_images, train_labels, test_images, test_labels (MedMNIST's naming;
 * images [N,H,W] or [N,H,W,3] uint8; labels [N] or [N,1] of any integer type;
 * optional train_domains, test_domains likewise; stored or compressed; a file
 * without the test arrays has an empty test split).
 *
 * Memory   Gives *dataset, freed by mm_dataset_close.
 * Ranks    Local.
 * Errors   MM_E_IO, MM_E_FORMAT naming file and array, MM_E_VALUE for a
 *          negative label (its index is given).
 */
mm_status mm_dataset_file_open(const char *path, mm_dataset **dataset);

/**
 * Fashion-MNIST's or MNIST's four IDX files under `folder`, plain or .gz.
 *
 * Memory, ranks, errors as mm_dataset_file_open; a missing file is MM_E_IO with
 * its name.
 */
mm_status mm_dataset_idx_open(const char *folder, mm_dataset **dataset);

void mm_dataset_close(mm_dataset **dataset);

/** Image i of a split, 0 <= i < n_images. */
mm_image mm_split_image(const mm_split *split, int64_t i);

/**
 * Write a packed data set: HDF5, groups /train and /test, each with `images`
 * [N,H,W] or [N,H,W,3] uint8 contiguous, `labels` int32, optional `domains`
 * int32; root datasets `class_names`, `domain_names` (variable-length UTF-8)
 * where known; root attributes `format` ("magmax-dataset"), `format_version`
 * (1), `provenance` (text, may be NULL). Atomic like a checkpoint.
 *
 * Ranks    Local: one rank writes.
 * Errors   MM_E_IO.
 */
mm_status mm_dataset_file_write(const char *path, const mm_dataset *dataset,
                                const char *provenance);

#endif
