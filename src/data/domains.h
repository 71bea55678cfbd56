#ifndef MAGMAX_SRC_DATA_DOMAINS_H
#define MAGMAX_SRC_DATA_DOMAINS_H

#include "io/dataset/dataset.h"
#include "src/base/log.h"

/**
 * Synthetic domains: the images of a data set, changed in a way that keeps what
 * they show. On pixel values v in 0..255:
 *
 *   upright   unchanged
 *   rot90     90 degrees counter-clockwise
 *   invert    255 - v
 *   noise     upside down, then 36 + v / 2 + 63 N(0, 1), clipped and rounded;
 *             the noise is a function of (seed, half, sample, pixel)
 *   pixelate  2 x 2 mean, each mean twice in both directions, transposed
 */

/** What a packed data set holds. */
typedef struct mm_domains_plan {
    const char *const *names; /* [n_names] synthetic domains           */
    int n_names;              /* 0: the data set's own domains, if any */
    int64_t train_per_class;  /* most training images of each class and domain;
                                 0: all                                */
    uint64_t seed;            /* of the noise                          */
} mm_domains_plan;

/** Check names of domains: MM_E_ARG for an unknown one (known ones and the
 * nearest are listed) or one that is named twice. */
mm_status mm_domains_check(const char *const *names, int n_names);

/**
 * Make a data set of the plan's domains: in each half all images in the first
 * domain, then all in the second, and so on, each in the source's order.
 *
 * Memory   Gives *made, freed by mm_domains_destroy (not mm_dataset_close);
 *          keeps the source's class names and the plan's names, or the
 *          source's names of domains.
 * Ranks    Local. Repeat: same bytes everywhere.
 * Timing   Blocking; shows progress on `log` (may be NULL).
 * Errors   MM_E_ARG as mm_domains_check, for a source that has domains
 *          already or whose images are encoded, and for domains that would make
 *          images of two sizes; MM_E_MEMORY.
 */
mm_status mm_domains_create(const mm_dataset *source,
                            const mm_domains_plan *plan, mm_log *log,
                            mm_dataset **made);
void mm_domains_destroy(mm_dataset **made);

#endif
