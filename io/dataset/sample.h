#ifndef MAGMAX_IO_DATASET_SAMPLE_H
#define MAGMAX_IO_DATASET_SAMPLE_H

#include "io/dataset/dataset.h"

/**
 * Reads the images of one half, whatever its storage; holds the scratch that
 * one thread needs to fetch and decode them.
 */
typedef struct mm_sample_reader mm_sample_reader;

/** Memory  Gives *reader, freed by mm_sample_reader_destroy; keeps half.
 *          Scratch grows with the largest image seen, and raw pixels need none.
 *          Ranks: local; one reader per thread. Errors: MM_E_MEMORY. */
mm_status mm_sample_reader_create(const mm_half *half,
                                  mm_sample_reader **reader);
void mm_sample_reader_destroy(mm_sample_reader **reader);

/**
 * Image i of the half, 0 <= i < n_images.
 *
 * Memory   *image points into the half or the reader, until its next call.
 * Timing   Blocking; raw pixels cost an address.
 * Errors   MM_E_FORMAT for bytes that are not an image, MM_E_IO for a file that
 *          cannot be read, each naming the image; MM_E_MEMORY.
 */
mm_status mm_sample_read(mm_sample_reader *reader, int64_t i, mm_image *image);

/** The encoded bytes of image i; its half does not hold raw pixels. Memory and
 * errors as above. */
mm_status mm_sample_read_bytes(mm_sample_reader *reader, int64_t i,
                               const uint8_t **bytes, int64_t *n_bytes);

/** How many bytes that will be. Errors: MM_E_IO. */
mm_status mm_sample_n_bytes(const mm_half *half, int64_t i, int64_t *n_bytes);

/** What messages call image i: the path of its file, or "training image 7",
 * with the path that it once had where that is known. */
enum { MM_SAMPLE_NAME_BYTES = 1200 };
void mm_sample_name(const mm_half *half, int64_t i,
                    char name[MM_SAMPLE_NAME_BYTES]);

#endif
