/* CRC-32 of tensors that several ranks read or write in pieces, in any order:
 * the pieces' checksums are combined at the end. */

#include "io/weights/checksum.h"

#include "comm/check_same.h"

#include <libdeflate.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

uint32_t mm_crc32(const void *data, int64_t n_bytes)
{
    return mm_crc32_continue(0, data, n_bytes);
}

uint32_t mm_crc32_continue(uint32_t crc, const void *data, int64_t n_bytes)
{
    return libdeflate_crc32(crc, data, (size_t)n_bytes);
}

mm_status mm_checksum_begin(mm_checksum *sum, const mm_tensor_table *table)
{
    *sum = (mm_checksum){.table = table};
    sum->latest = calloc((size_t)table->n_tensors + 1, sizeof *sum->latest);
    if (!sum->latest)
        return mm_fail(MM_E_MEMORY, "no memory for checksums");
    mm_checksum_restart(sum);
    return MM_OK;
}

void mm_checksum_end(mm_checksum *sum)
{
    free(sum->latest);
    free(sum->parts);
    *sum = (mm_checksum){0};
}

void mm_checksum_restart(mm_checksum *sum)
{
    sum->n_parts = 0;
    for (int i = 0; i < sum->table->n_tensors; i++)
        sum->latest[i] = -1;
}

static mm_status new_part(mm_checksum *sum, int tensor, int64_t first)
{
    if (sum->n_parts == sum->capacity) {
        if (sum->capacity > INT_MAX / 2)
            return mm_fail(MM_E_MEMORY, "too many pieces for checksums");
        int capacity = sum->capacity ? 2 * sum->capacity : 256;
        mm_checksum_part *grown =
            realloc(sum->parts, (size_t)capacity * sizeof *grown);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for checksums");
        sum->parts = grown;
        sum->capacity = capacity;
    }
    sum->latest[tensor] = sum->n_parts;
    sum->parts[sum->n_parts++] =
        (mm_checksum_part){.tensor = tensor, .first = first, .end = first};
    return MM_OK;
}

mm_status mm_checksum_add(mm_checksum *sum, int tensor, int64_t first,
                          int64_t n_elems, const void *data, int64_t n_bytes)
{
    int latest = sum->latest[tensor];
    if (latest < 0 || sum->parts[latest].end != first) {
        MM_TRY(new_part(sum, tensor, first));
        latest = sum->latest[tensor];
    }
    mm_checksum_part *part = &sum->parts[latest];
    part->end += n_elems;
    part->n_bytes += n_bytes;
    if (data)
        part->crc = mm_crc32_continue(part->crc, data, n_bytes);
    return MM_OK;
}

/* Every rank's parts, the same on all of them: *parts (free), *n_parts. */
static mm_status gather(const mm_checksum *sum, mm_comm *comm,
                        mm_checksum_part **parts, int64_t *n_parts)
{
    int n_ranks = comm ? mm_comm_n_ranks(comm) : 1;
    int64_t mine = sum->n_parts, most = 0, total = 0;
    int64_t *counts = calloc((size_t)n_ranks, sizeof *counts);
    mm_checksum_part *own = NULL, *all = NULL;
    mm_status st = MM_OK;

    if (!counts)
        st = mm_fail(MM_E_MEMORY, "no memory for checksums");
    MM_TRY_GOTO(st, done, comm ? mm_comm_agree(comm, st) : st);
    counts[0] = mine;
    if (comm)
        MM_TRY_GOTO(st, done,
                    mm_comm_allgather(comm, &mine, sizeof mine, counts));
    for (int i = 0; i < n_ranks; i++)
        most = counts[i] > most ? counts[i] : most;

    /* All send as much as the one that has most. */
    own = calloc((size_t)most + 1, sizeof *own);
    all = calloc((size_t)(most * n_ranks) + 1, sizeof *all);
    if (!own || !all)
        st = mm_fail(MM_E_MEMORY, "no memory for checksums");
    MM_TRY_GOTO(st, done, comm ? mm_comm_agree(comm, st) : st);
    if (mine)
        memcpy(comm ? own : all, sum->parts, (size_t)mine * sizeof *own);
    if (comm)
        MM_TRY_GOTO(
            st, done,
            mm_comm_allgather(comm, own, most * (int64_t)sizeof *own, all));
    for (int i = 0; i < n_ranks; total += counts[i++])
        memmove(all + total, all + i * most, (size_t)counts[i] * sizeof *all);
    *parts = all;
    *n_parts = total;
    all = NULL;
done:
    free(all);
    free(own);
    free(counts);
    return st;
}

static int by_place(const void *a, const void *b)
{
    const mm_checksum_part *x = a, *y = b;
    if (x->tensor != y->tensor)
        return x->tensor < y->tensor ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

static mm_status combine(const mm_tensor *tensor, const mm_checksum_part *parts,
                         int64_t n_parts, uint32_t *crc)
{
    int64_t end = 0;
    *crc = 0;
    for (int64_t i = 0; i < n_parts && parts[i].first == end; i++) {
        *crc = (uint32_t)crc32_combine(*crc, parts[i].crc, parts[i].n_bytes);
        end = parts[i].end;
        if (i == n_parts - 1 && end == tensor->n_elems)
            return MM_OK;
    }
    if (n_parts == 0 && tensor->n_elems == 0)
        return MM_OK;
    return mm_fail(MM_E_ARG,
                   "checksums need every element once, and those of tensor %s "
                   "were so only up to %lld of %lld",
                   tensor->name, (long long)end, (long long)tensor->n_elems);
}

mm_status mm_checksum_combine(const mm_checksum *sum, mm_comm *comm,
                              uint32_t *crc)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_INT(sum->table->n_tensors)));
    mm_checksum_part *parts = NULL;
    int64_t n_parts = 0, begin = 0;
    mm_status st = gather(sum, comm, &parts, &n_parts);

    if (st == MM_OK)
        qsort(parts, (size_t)n_parts, sizeof *parts, by_place);
    /* The same data everywhere, so the same answer. */
    for (int i = 0; st == MM_OK && i < sum->table->n_tensors; i++) {
        int64_t end = begin;
        while (end < n_parts && parts[end].tensor == i)
            end++;
        if (comm || end > begin)
            st = combine(&sum->table->tensors[i], parts + begin, end - begin,
                         &crc[i]);
        begin = end;
    }
    free(parts);
    return st;
}
