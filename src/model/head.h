#ifndef MAGMAX_SRC_MODEL_HEAD_H
#define MAGMAX_SRC_MODEL_HEAD_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** A frozen classification head, already scaled: logits = weight f / |f|. */
typedef struct mm_head {
    int64_t n_classes, embed_dim;
    float *weight;      /* host, [n_classes, embed_dim]            */
    char **class_names; /* [n_classes], one block; NULL: not known */
    char **prompts;     /* [n_prompts] likewise, of a zero-shot head */
    int64_t n_prompts;
} mm_head;

/**
 * Read a head: one tensor `weight` in an HDF5 or safetensors file, and in HDF5
 * the lists `class_names` and `prompts` where they are.
 *
 * Memory   Fills *head, freed by mm_head_clear. Start from {0}.
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_FORMAT for another shape or embed_dim, or another
 *          number of names than rows; MM_E_VALUE for NaN or infinity.
 */
mm_status mm_head_read(const char *path, int64_t embed_dim, mm_head *head);
void mm_head_clear(mm_head *head);

/**
 * Write a head and how it came about (JSON text), an HDF5 file, atomically.
 *
 * Ranks    Local: one rank writes.
 * Errors   MM_E_IO.
 */
mm_status mm_head_write(const char *path, const mm_head *head,
                        const char *provenance);

/** Room for the weight of a head that is being made. Memory as mm_head_read;
 * MM_E_MEMORY. */
mm_status mm_head_init(int64_t n_classes, int64_t embed_dim, mm_head *head);

/** Scale a row to `length`; false where its length is 0 or not finite. */
bool mm_head_set_length(double *row, int64_t n, double length);

#endif
