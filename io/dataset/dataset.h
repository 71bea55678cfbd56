#ifndef MAGMAX_IO_DATASET_DATASET_H
#define MAGMAX_IO_DATASET_DATASET_H

#include "comm/comm.h"
#include "io/image/image.h"
#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** Where the images of a half are. */
typedef enum mm_storage {
    MM_STORED_PIXELS, /* raw, all of one size, in memory or mapped          */
    MM_STORED_BYTES,  /* encoded, one behind the other, likewise            */
    MM_STORED_FILES   /* encoded, each in a file of its own                 */
} mm_storage;

/** The training or the test half of a data set, in its own order. Its images
 * are read through io/dataset/sample.h, wherever they are. */
typedef struct mm_half {
    int64_t n_images;
    mm_storage storage;
    int64_t height, width; /* pixels: of each image                    */
    int channels;          /* pixels: 1 or 3                           */
    const uint8_t *pixels; /* [n_images, height, width, channels]      */
    const uint8_t *bytes;  /* bytes: [offsets[n_images]]               */
    int64_t *offsets;      /* bytes: [n_images + 1], where each begins */
    char *paths;           /* files: n_images texts, each with its NUL,
                              relative to the data set; else may be NULL */
    int64_t *path_starts;  /* [n_images] into paths, or NULL           */
    const char *folder;    /* files: the data set's folder             */
    const char *what;      /* "training image"; NULL: just "image"     */
    int32_t *labels;       /* [n_images], each in [0, n_classes)       */
    int32_t *domains;      /* [n_images], or NULL: all in domain 0     */
} mm_half;

/**
 * A labelled data set of images in memory, mapped from a file so that the
 * ranks of a host share its pages, or in a folder of class folders.
 */
typedef struct mm_dataset {
    char *name; /* for messages: the path or the built-in name */
    mm_half train, test;
    bool same_halves; /* test is train: the same images, for whatever purpose */
    int n_classes;    /* 1 + the largest label, or the number of names */
    char **class_names; /* [n_classes], one block, or NULL */
    int n_domains;
    char **domain_names; /* [n_domains], one block, or NULL */
    char *note;          /* one line for the user, or NULL */
    void *storage;       /* owns the pixels; private to io */
    void (*release)(void *storage);
} mm_dataset;

/**
 * Open a file of images by content: a packed data set (HDF5), or .npz with
 * train_images, train_labels, test_images, test_labels (MedMNIST's naming;
 * images [N,H,W] or [N,H,W,3] uint8; labels [N] or [N,1] of any integer type;
 * optional train_domains, test_domains likewise; stored or compressed; a file
 * without the test arrays has an empty test half).
 *
 * Memory   Gives *dataset, freed by mm_dataset_close.
 * Ranks    Local.
 * Errors   MM_E_IO, MM_E_FORMAT naming file and array, MM_E_VALUE for a
 *          negative label (its index is given).
 */
mm_status mm_dataset_open_file(const char *path, mm_dataset **dataset);

/**
 * Fashion-MNIST's or MNIST's four IDX files under `folder`, plain or .gz.
 *
 * Memory, ranks, errors as mm_dataset_open_file; a missing file is MM_E_IO with
 * its name.
 */
mm_status mm_dataset_open_idx(const char *folder, mm_dataset **dataset);

/**
 * Open a folder of class folders: FOLDER/CLASS/..., which is one half, or
 * FOLDER/train/CLASS/... and FOLDER/test/CLASS/... (or val/ where there is no
 * test/); train/, test/ and val/ are halves where they hold folders
 * themselves, else classes. Labels count the class folders in byte order of
 * their names; images are in byte order of their paths below FOLDER. Folders
 * in a class are searched too; links are followed.
 *
 * An image is a file whose name ends in .jpg, .jpeg, .jpe, .jfif, .png, .webp,
 * .ppm, .pgm, .pbm or .pnm (in capitals too), or which begins as a JPEG, PNG or
 * WebP file does. What else is there, and whatever has a name that begins with
 * a dot, is left out, and `note` says so. Images are first opened when they are
 * read.
 *
 * Memory   As mm_dataset_open_file.
 * Ranks    Collective over `comm`, same folder: rank 0 lists the files and
 *          sends the list, so that all ranks have the same one. NULL: this
 *          rank alone.
 * Errors   The same on every rank: MM_E_IO; MM_E_FORMAT for a folder without
 *          class folders, a class folder without images, a class of one half
 *          that the other does not have, and images of a kind that cannot be
 *          read
 *          (.bmp, .gif, .tif, .heic, ...).
 */
mm_status mm_dataset_open_folder(mm_comm *comm, const char *folder,
                                 mm_dataset **dataset);

void mm_dataset_close(mm_dataset **dataset);

/**
 * Write a packed data set in one go; what is packed is in memory or mapped.
 * io/dataset/write_packed.h describes the format.
 *
 * Ranks    Local: one rank writes.
 * Errors   MM_E_IO.
 */
mm_status mm_dataset_write(const char *path, const mm_dataset *dataset,
                           const char *provenance);

#endif
