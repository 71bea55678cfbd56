/* Checking which ranks have a GPU and whether any two of them share one. */

#include "src/programs/gpus.h"

#include "comm/check_same.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** Where a rank computes. */
typedef struct placement {
    int node; /* mm_comm_node: hosts may have the same name */
    char host[64];
    char gpu[32]; /* mm_device_gpu */
} placement;

/* What fits on a line. */
enum { MOST_NAMED = 8 };

static bool is_same(const placement *a, const placement *b)
{
    return a->node == b->node && !strcmp(a->gpu, b->gpu);
}

/** How many ranks from `first` on compute where that one does. */
static int count_sharing(const placement *placements, int n_ranks, int first)
{
    int n = 0;
    for (int rank = first; rank < n_ranks; rank++)
        n += is_same(&placements[rank], &placements[first]);
    return n;
}

/** The lowest rank that shares its GPU with later ones, or n_ranks; and how
 * many more GPUs are shared. */
static int find_shared(const placement *placements, int n_ranks, int *n_more)
{
    int found = n_ranks;
    *n_more = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        bool is_first = true;
        for (int before = 0; before < rank && is_first; before++)
            is_first = !is_same(&placements[before], &placements[rank]);
        if (!is_first || count_sharing(placements, n_ranks, rank) < 2)
            continue;
        if (found == n_ranks)
            found = rank;
        else
            ++*n_more;
    }
    return found;
}

/** "ranks 0, 2 and 4 share GPU 0000:3B:00.0 of host a". */
static void describe(const placement *placements, int n_ranks, int first,
                     int n_more, char *text, size_t size)
{
    const int n = count_sharing(placements, n_ranks, first);
    size_t at = (size_t)snprintf(text, size, "ranks %d", first);
    for (int rank = first + 1, named = 1; rank < n_ranks; rank++) {
        if (!is_same(&placements[rank], &placements[first]))
            continue;
        named++;
        if (named <= MOST_NAMED)
            at += (size_t)snprintf(text + at, size - at, "%s%d",
                                   named == n ? " and " : ", ", rank);
    }
    if (n > MOST_NAMED)
        at += (size_t)snprintf(text + at, size - at, " and %d more",
                               n - MOST_NAMED);
    at += (size_t)snprintf(text + at, size - at, " share GPU %s of host %s",
                           placements[first].gpu, placements[first].host);
    if (n_more > 0)
        snprintf(text + at, size - at, ", others %d more GPU%s", n_more,
                 n_more > 1 ? "s" : "");
}

static mm_status check_placements(mm_log *log, const placement *placements,
                                  int n_ranks, bool each_its_own)
{
    char text[512];
    int n_gpus = 0, n_more;
    for (int rank = 0; rank < n_ranks; rank++)
        n_gpus += placements[rank].gpu[0] != '\0';
    if (n_gpus == 0)
        return MM_OK;
    if (n_gpus < n_ranks)
        return mm_fail(MM_E_DEVICE,
                       "%d of %d ranks have a GPU; start ranks where there is "
                       "one, or give --device cpu",
                       n_gpus, n_ranks);
    int first = find_shared(placements, n_ranks, &n_more);
    if (first == n_ranks)
        return MM_OK;
    describe(placements, n_ranks, first, n_more, text, sizeof text);
    if (each_its_own)
        return mm_fail(MM_E_DEVICE,
                       "%s, but training needs one GPU per rank; start as many "
                       "ranks on a host as it has GPUs, or give --device cpu",
                       text);
    mm_log_warn(log, "%s; each has the whole model there", text);
    return MM_OK;
}

mm_status mm_gpus_check(mm_comm *comm, mm_log *log, const mm_device *device,
                        bool each_its_own)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_INT(each_its_own)));
    const int n_ranks = mm_comm_n_ranks(comm);
    placement mine = {.node = mm_comm_node(comm)};
    placement *placements = calloc((size_t)n_ranks, sizeof *placements);
    mm_status st = MM_OK;
    if (!placements)
        st = mm_fail(MM_E_MEMORY, "no memory for the devices of %d ranks",
                     n_ranks);
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    (void)gethostname(mine.host, sizeof mine.host - 1);
    snprintf(mine.gpu, sizeof mine.gpu, "%s", mm_device_gpu(device));
    MM_TRY_GOTO(st, done,
                mm_comm_allgather(comm, &mine, sizeof mine, placements));
    st = check_placements(log, placements, n_ranks, each_its_own);
done:
    free(placements);
    return st;
}
