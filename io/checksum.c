#include "io/checksum.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

uint32_t mm_crc32(const void *data, int64_t n_bytes)
{
    return libdeflate_crc32(0, data, (size_t)n_bytes);
}

mm_status mm_checksum_begin(mm_checksum *sum, const mm_tensor_table *table)
{
    *sum = (mm_checksum){.table = table};
    sum->partial = calloc((size_t)table->n_tensors + 1, sizeof *sum->partial);
    if (!sum->partial)
        return mm_fail(MM_E_MEMORY, "no memory for checksums");
    return MM_OK;
}

void mm_checksum_end(mm_checksum *sum)
{
    free(sum->partial);
    *sum = (mm_checksum){0};
}

void mm_checksum_restart(mm_checksum *sum)
{
    memset(sum->partial, 0,
           (size_t)sum->table->n_tensors * sizeof *sum->partial);
    sum->lo = sum->hi = 0;
    sum->scattered = false;
}

void mm_checksum_advance(mm_checksum *sum, int64_t lo, int64_t hi)
{
    if (lo == hi)
        return;
    if (sum->lo == sum->hi)
        sum->lo = lo;
    else if (sum->hi != lo)
        sum->scattered = true;
    sum->hi = hi;
}

void mm_checksum_add(mm_checksum *sum, int tensor, const void *data,
                     int64_t n_bytes)
{
    mm_partial_crc *part = &sum->partial[tensor];
    part->crc = libdeflate_crc32(part->crc, data, (size_t)n_bytes);
    part->n_bytes += n_bytes;
}

/* What a rank sends: its range, then a part for each tensor. */
typedef struct share {
    int64_t lo, hi, scattered;
    mm_partial_crc partial[];
} share;

static mm_status check_cover(const char *shares, size_t share_bytes,
                             int n_ranks, int64_t n_elems)
{
    int64_t covered = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        const share *s = (const void *)(shares + (size_t)rank * share_bytes);
        if (s->scattered || (s->lo < s->hi && s->lo != covered))
            return mm_fail(MM_E_ARG,
                           "checksums need one ascending pass over all "
                           "elements, in rank order");
        if (s->lo < s->hi)
            covered = s->hi;
    }
    if (covered != n_elems)
        return mm_fail(MM_E_ARG,
                       "checksums need all %lld elements, but %lld were seen",
                       (long long)n_elems, (long long)covered);
    return MM_OK;
}

static void combine(const char *shares, size_t share_bytes, int n_ranks,
                    int n_tensors, uint32_t *crc)
{
    memset(crc, 0, (size_t)n_tensors * sizeof *crc);
    for (int rank = 0; rank < n_ranks; rank++) {
        const share *s = (const void *)(shares + (size_t)rank * share_bytes);
        for (int i = 0; i < n_tensors; i++)
            if (s->partial[i].n_bytes > 0)
                crc[i] = (uint32_t)crc32_combine(crc[i], s->partial[i].crc,
                                                 s->partial[i].n_bytes);
    }
}

mm_status mm_checksum_combine(const mm_checksum *sum, mm_comm *comm,
                              uint32_t *crc)
{
    int n_ranks = comm ? mm_comm_n_ranks(comm) : 1;
    int n_tensors = sum->table->n_tensors;
    size_t partial_bytes = (size_t)n_tensors * sizeof *sum->partial;
    size_t share_bytes = sizeof(share) + partial_bytes;
    share *mine = malloc(share_bytes);
    char *all = malloc((size_t)n_ranks * share_bytes);
    mm_status st = MM_OK;

    if (!mine || !all)
        st = mm_fail(MM_E_MEMORY, "no memory for checksums");
    if (comm)
        st = mm_comm_agree(comm, st);
    if (st != MM_OK)
        goto done;
    *mine = (share){sum->lo, sum->hi, sum->scattered};
    memcpy(mine->partial, sum->partial, partial_bytes);
    if (comm)
        MM_TRY_GOTO(st, done,
                    mm_comm_allgather(comm, mine, (int64_t)share_bytes, all));
    else
        memcpy(all, mine, share_bytes);
    /* The same data everywhere, so the same answer. */
    MM_TRY_GOTO(st, done,
                check_cover(all, share_bytes, n_ranks, sum->table->n_elems));
    combine(all, share_bytes, n_ranks, n_tensors, crc);
done:
    free(all);
    free(mine);
    return st;
}
