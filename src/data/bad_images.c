/* The list of images that could not be decoded: collected on each rank, named
 * once by rank 0. */

#include "src/data/bad_images.h"

#include "comm/check_same.h"

#include <stdlib.h>
#include <string.h>

struct mm_bad_images {
    bool *known; /* [n_images of the half] what rank 0 has named */
    int64_t n_known;
    mm_bad_image *noted; /* on this rank, since they were last shared */
    int64_t n_noted, capacity;
};

mm_status mm_bad_images_create(const mm_half *half, mm_bad_images **bad)
{
    mm_bad_images *b = calloc(1, sizeof *b);
    *bad = b;
    if (b)
        b->known = calloc((size_t)half->n_images + 1, sizeof *b->known);
    if (b && b->known)
        return MM_OK;
    mm_bad_images_destroy(bad);
    return mm_fail(MM_E_MEMORY, "no memory for a list of images");
}

void mm_bad_images_destroy(mm_bad_images **bad)
{
    if (!*bad)
        return;
    free((*bad)->known);
    free((*bad)->noted);
    free(*bad);
    *bad = NULL;
}

mm_status mm_bad_images_add(mm_bad_images *b, const mm_bad_image *images,
                            int64_t n)
{
    if (n == 0)
        return MM_OK;
    if (b->n_noted + n > b->capacity) {
        int64_t capacity = 2 * b->capacity + n;
        mm_bad_image *grown =
            realloc(b->noted, (size_t)capacity * sizeof *grown);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for a list of bad images");
        b->noted = grown;
        b->capacity = capacity;
    }
    memcpy(b->noted + b->n_noted, images, (size_t)n * sizeof *images);
    b->n_noted += n;
    return MM_OK;
}

static void name_new_ones(mm_bad_images *b, mm_log *log,
                          const mm_bad_image *images, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (b->known[images[i].sample])
            continue;
        b->known[images[i].sample] = true;
        b->n_known++;
        mm_log_warn(log, "skipped: %s", images[i].why);
    }
}

mm_status mm_bad_images_share(mm_bad_images *b, mm_comm *comm, mm_log *log)
{
    MM_TRY(MM_CHECK_CALL(comm));
    int64_t n_all = b->n_noted, size = (int64_t)sizeof(mm_bad_image);
    mm_bad_image *all = NULL;
    mm_status st = MM_OK;
    if (!comm) {
        name_new_ones(b, log, b->noted, b->n_noted);
        b->n_noted = 0;
        return MM_OK;
    }
    MM_TRY(mm_comm_sum_int64(comm, &n_all, 1));
    if (n_all == 0)
        return MM_OK;
    if (mm_comm_rank(comm) == 0) {
        all = malloc((size_t)(n_all * size));
        if (!all)
            st = mm_fail(MM_E_MEMORY, "no memory for a list of bad images");
    }
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    MM_TRY_GOTO(st, done,
                mm_comm_collect(comm, b->noted, b->n_noted * size, all));
    b->n_noted = 0;
    if (all)
        name_new_ones(b, log, all, n_all);
    st = mm_comm_broadcast(comm, &b->n_known, sizeof b->n_known, 0);
done:
    free(all);
    return st;
}

int64_t mm_bad_images_count(const mm_bad_images *bad)
{
    return bad->n_known;
}
