#include "io/weights/weights_writer.h"

#include "comm/check_same.h"
#include "comm/partition.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_ELEMS = 1 << 18 }; /* checked, summed up, written in cache */

static bool is_root(const mm_checkpoint *cp)
{
    return mm_comm_rank(cp->comm) == 0;
}

static void destroy(mm_checkpoint *cp)
{
    if (!cp)
        return;
    if (cp->fd >= 0)
        close(cp->fd);
    mm_checksum_end(&cp->sum);
    free(cp->buffer);
    free(cp->off_bytes);
    free(cp->tmp_path);
    free(cp->path);
    free(cp);
}

static mm_status prepare(mm_comm *comm, const char *path,
                         const mm_tensor_table *table,
                         const mm_checkpoint_content *content,
                         mm_checkpoint **cp)
{
    int elem_bytes = mm_elem_n_bytes(content->type);
    mm_checkpoint *c = calloc(1, sizeof *c);
    *cp = c;
    if (!c)
        return mm_fail(MM_E_MEMORY, "%s: no memory to write it", path);
    c->comm = comm;
    c->table = table;
    c->content = *content;
    c->fd = -1;
    c->path = strdup(path);
    if (asprintf(&c->tmp_path, "%s.tmp", path) < 0)
        c->tmp_path = NULL;
    c->off_bytes = calloc((size_t)table->n_tensors + 1, sizeof *c->off_bytes);
    if (content->type != MM_ELEM_F32)
        c->buffer = malloc(PIECE_ELEMS * (size_t)elem_bytes);
    if (!c->path || !c->tmp_path || !c->off_bytes ||
        (content->type != MM_ELEM_F32 && !c->buffer))
        return mm_fail(MM_E_MEMORY, "%s: no memory to write it", path);
    if (table->n_elems > INT64_MAX / 8)
        return mm_fail(MM_E_ARG, "%s: too many elements", path);
    MM_TRY(content->format->check(c));
    return mm_checksum_begin(&c->sum, table);
}

/* Room on the disk, so that a full one is an error before hours of training
 * end at it. File systems that cannot tell go on. */
static mm_status reserve(const mm_checkpoint *cp, int fd, int64_t n_bytes)
{
    if (fallocate(fd, 0, 0, n_bytes) == 0)
        return MM_OK;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
        return mm_fail_errno("cannot write %s (%lld bytes)", cp->path,
                             (long long)n_bytes);
    return MM_OK;
}

mm_status mm_checkpoint_probe(const mm_checkpoint *cp, int64_t n_bytes)
{
    struct stat info;
    if (stat(cp->path, &info) == 0 && !S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "cannot write %s: it is no regular file",
                       cp->path);
    int fd = open(cp->tmp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return mm_fail_errno("cannot create %s", cp->tmp_path);
    mm_status st = reserve(cp, fd, n_bytes);
    close(fd);
    return st;
}

static mm_status open_to_write(mm_checkpoint *cp)
{
    struct stat info;
    cp->fd = open(cp->tmp_path, O_WRONLY | O_CLOEXEC);
    if (cp->fd < 0 || fstat(cp->fd, &info) != 0)
        return mm_fail_errno("cannot open %s", cp->tmp_path);
    if (!is_root(cp))
        return MM_OK;
    return reserve(cp, cp->fd, info.st_size);
}

/* After a failure: no rank returns before the temporary file is gone. */
static void remove_tmp(mm_checkpoint *cp, mm_status st)
{
    if (is_root(cp))
        unlink(cp->tmp_path);
    if (st != MM_E_COMM) {
        char message[1024];
        snprintf(message, sizeof message, "%s", mm_fail_message());
        if (mm_comm_barrier(cp->comm) == MM_OK)
            mm_fail(st, "%s", message);
    }
}

mm_status mm_checkpoint_begin(mm_comm *comm, const char *path,
                              const mm_tensor_table *table,
                              const mm_checkpoint_content *content,
                              mm_checkpoint **checkpoint)
{
    MM_TRY(
        MM_CHECK_SAME(comm, MM_SAME_TEXT(path), MM_SAME_INT(table->n_tensors),
                      MM_SAME_INT(table->n_elems), MM_SAME_INT(content->type)));
    mm_checkpoint *cp = NULL;
    bool made = false;
    mm_status st = prepare(comm, path, table, content, &cp);

    *checkpoint = NULL;
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    made = true;
    if (is_root(cp))
        st = content->format->create(cp);
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    MM_TRY_GOTO(st, done,
                mm_comm_broadcast(
                    comm, cp->off_bytes,
                    (int64_t)sizeof *cp->off_bytes * table->n_tensors, 0));
    st = open_to_write(cp);
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    cp->content.model = cp->content.provenance = NULL;
    *checkpoint = cp;
    return MM_OK;
done:
    if (made)
        remove_tmp(cp, st);
    destroy(cp);
    return st;
}

static mm_status write_piece(mm_checkpoint *cp, int tensor, int64_t first,
                             int64_t n, const float *values)
{
    const mm_tensor *t = &cp->table->tensors[tensor];
    mm_elem_type type = cp->content.type;
    const void *bytes = values;
    int64_t bad;
    if (type == MM_ELEM_F32) {
        bad = mm_first_nonfinite(values, n);
    } else {
        bad = mm_convert_from_f32(type, values, cp->buffer, n);
        bytes = cp->buffer;
    }
    if (bad >= 0 && isfinite(values[bad]))
        return mm_fail(MM_E_VALUE,
                       "%s: not written, because element %lld of tensor %s is "
                       "%g, too large for %s; write F32 or BF16",
                       cp->path, (long long)(first + bad), t->name,
                       (double)values[bad], mm_elem_name(type));
    if (bad >= 0)
        return mm_fail(MM_E_VALUE,
                       "%s: not written, because element %lld of tensor %s is "
                       "not a finite number",
                       cp->path, (long long)(first + bad), t->name);
    int64_t elem_bytes = mm_elem_n_bytes(type), n_bytes = n * elem_bytes;
    MM_TRY(mm_checksum_add(&cp->sum, tensor, first, n,
                           cp->content.format->has_checksums ? bytes : NULL,
                           n_bytes));
    return mm_file_write_at(cp->fd, cp->tmp_path,
                            cp->off_bytes[tensor] + first * elem_bytes, bytes,
                            n_bytes);
}

mm_status mm_checkpoint_write(mm_checkpoint *checkpoint, int64_t lo, int64_t hi,
                              const float *values)
{
    const mm_tensor_table *table = checkpoint->table;
    if (lo < 0 || lo > hi || hi > table->n_elems)
        return mm_fail(MM_E_ARG, "%s: no elements [%lld, %lld) among %lld",
                       checkpoint->path, (long long)lo, (long long)hi,
                       (long long)table->n_elems);
    if (lo == hi)
        return MM_OK;
    for (int i = mm_tensor_table_at(table, lo);
         i < table->n_tensors && table->tensors[i].off_elems < hi; i++) {
        const mm_tensor *t = &table->tensors[i];
        int64_t at = t->off_elems > lo ? t->off_elems : lo;
        int64_t end = t->off_elems + t->n_elems;
        if (end > hi)
            end = hi;
        for (; at < end; at += PIECE_ELEMS) {
            int64_t n = end - at < PIECE_ELEMS ? end - at : PIECE_ELEMS;
            MM_TRY(write_piece(checkpoint, i, at - t->off_elems, n,
                               values + (at - lo)));
        }
    }
    return MM_OK;
}

/* What this rank wrote reaches the disk before any name says so. */
static mm_status flush(mm_checkpoint *cp)
{
    mm_status st = MM_OK;
    if (fsync(cp->fd) != 0)
        st = mm_fail_errno("cannot flush %s to the disk", cp->tmp_path);
    if (close(cp->fd) != 0 && st == MM_OK)
        st = mm_fail_errno("cannot write %s", cp->tmp_path);
    cp->fd = -1;
    return st;
}

static mm_status finish(const mm_checkpoint *cp, const uint32_t *crc,
                        const char *model, const char *provenance)
{
    if (cp->content.format->finish)
        MM_TRY(cp->content.format->finish(cp, crc, model, provenance));
    return mm_file_commit(cp->tmp_path, cp->path);
}

mm_status mm_checkpoint_commit(mm_checkpoint **checkpoint, mm_status status,
                               const char *model, const char *provenance)
{
    MM_TRY(MM_CHECK_CALL((*checkpoint)->comm));
    mm_checkpoint *cp = *checkpoint;
    mm_comm *comm = cp->comm;
    uint32_t *crc = NULL;
    mm_status st = status;

    if (st == MM_OK)
        st = flush(cp);
    if (st == MM_OK) {
        crc = calloc((size_t)cp->table->n_tensors + 1, sizeof *crc);
        if (!crc)
            st = mm_fail(MM_E_MEMORY, "%s: no memory for checksums", cp->path);
    }
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    MM_TRY_GOTO(st, done, mm_checksum_combine(&cp->sum, comm, crc));
    if (is_root(cp))
        st = finish(cp, crc, model, provenance);
    st = mm_comm_agree(comm, st);
done:
    if (st != MM_OK)
        remove_tmp(cp, st);
    free(crc);
    destroy(cp);
    *checkpoint = NULL;
    return st;
}

mm_status mm_checkpoint_save(mm_comm *comm, const char *path,
                             const mm_tensor_table *table, const float *values,
                             const char *model, const char *provenance)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(path),
                         MM_SAME_BYTES(values, table->n_elems * 4)));
    mm_checkpoint *cp;
    MM_TRY(mm_checkpoint_create(comm, path, table, &cp));
    mm_range own =
        mm_partition(table->n_elems, mm_comm_rank(comm), mm_comm_n_ranks(comm));
    mm_status st = mm_checkpoint_write(cp, own.lo, own.hi, values + own.lo);
    return mm_checkpoint_commit(&cp, st, model, provenance);
}
