/* The ranks write the elements of one weights file, which gets its name when it
 * is whole; write_*.c know the formats. */

#include "io/weights/weights_format.h"

#include "comm/check_same.h"
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

static bool is_root(const mm_weights_writer *w)
{
    return mm_comm_rank(w->comm) == 0;
}

static void destroy(mm_weights_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    mm_checksum_end(&w->sum);
    free(w->buffer);
    free(w->off_bytes);
    free(w->tmp_path);
    free(w->path);
    free(w);
}

static mm_status prepare(mm_comm *comm, const char *path,
                         const mm_tensor_table *table,
                         const mm_weights_content *content,
                         mm_weights_writer **w)
{
    int elem_bytes = mm_elem_n_bytes(content->type);
    mm_weights_writer *c = calloc(1, sizeof *c);
    *w = c;
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
static mm_status reserve(const mm_weights_writer *w, int fd, int64_t n_bytes)
{
    if (fallocate(fd, 0, 0, n_bytes) == 0)
        return MM_OK;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
        return mm_fail_errno("cannot write %s (%lld bytes)", w->path,
                             (long long)n_bytes);
    return MM_OK;
}

mm_status mm_weights_writer_reserve(const mm_weights_writer *w, int64_t n_bytes)
{
    struct stat info;
    if (stat(w->path, &info) == 0 && !S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "cannot write %s: it is not a regular file",
                       w->path);
    int fd = open(w->tmp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return mm_fail_errno("cannot create %s", w->tmp_path);
    mm_status st = reserve(w, fd, n_bytes);
    close(fd);
    return st;
}

static mm_status open_to_write(mm_weights_writer *w)
{
    struct stat info;
    w->fd = open(w->tmp_path, O_WRONLY | O_CLOEXEC);
    if (w->fd < 0 || fstat(w->fd, &info) != 0)
        return mm_fail_errno("cannot open %s", w->tmp_path);
    if (!is_root(w))
        return MM_OK;
    return reserve(w, w->fd, info.st_size);
}

/* After a failure: no rank returns before the temporary file is gone. */
static void remove_tmp(mm_weights_writer *w, mm_status st)
{
    if (is_root(w))
        unlink(w->tmp_path);
    if (st != MM_E_COMM) {
        char message[1024];
        snprintf(message, sizeof message, "%s", mm_fail_message());
        if (mm_comm_barrier(w->comm) == MM_OK)
            mm_fail(st, "%s", message);
    }
}

mm_status mm_weights_writer_begin(mm_comm *comm, const char *path,
                                  const mm_tensor_table *table,
                                  const mm_weights_content *content,
                                  mm_weights_writer **writer)
{
    MM_TRY(
        MM_CHECK_SAME(comm, MM_SAME_TEXT(path), MM_SAME_INT(table->n_tensors),
                      MM_SAME_INT(table->n_elems), MM_SAME_INT(content->type)));
    mm_weights_writer *w = NULL;
    bool made = false;
    mm_status st = prepare(comm, path, table, content, &w);

    *writer = NULL;
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    made = true;
    if (is_root(w))
        st = content->format->create(w);
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    MM_TRY_GOTO(
        st, done,
        mm_comm_broadcast(comm, w->off_bytes,
                          (int64_t)sizeof *w->off_bytes * table->n_tensors, 0));
    st = open_to_write(w);
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    w->content.model = w->content.provenance = NULL;
    *writer = w;
    return MM_OK;
done:
    if (made)
        remove_tmp(w, st);
    destroy(w);
    return st;
}

static mm_status write_piece(mm_weights_writer *w, int tensor, int64_t first,
                             int64_t n, const float *values)
{
    const mm_tensor *t = &w->table->tensors[tensor];
    mm_elem_type type = w->content.type;
    const void *bytes = values;
    int64_t bad;
    if (type == MM_ELEM_F32) {
        bad = mm_first_nonfinite(values, n);
    } else {
        bad = mm_elem_from_f32(type, values, w->buffer, n);
        bytes = w->buffer;
    }
    if (bad >= 0 && isfinite(values[bad]))
        return mm_fail(MM_E_VALUE,
                       "%s: not written, because element %lld of tensor %s is "
                       "%g, too large for %s; write F32 or BF16",
                       w->path, (long long)(first + bad), t->name,
                       (double)values[bad], mm_elem_name(type));
    if (bad >= 0)
        return mm_fail(MM_E_VALUE,
                       "%s: not written, because element %lld of tensor %s is "
                       "not a finite number",
                       w->path, (long long)(first + bad), t->name);
    int64_t elem_bytes = mm_elem_n_bytes(type), n_bytes = n * elem_bytes;
    MM_TRY(mm_checksum_add(&w->sum, tensor, first, n,
                           w->content.format->has_checksums ? bytes : NULL,
                           n_bytes));
    return mm_file_write_at(w->fd, w->tmp_path,
                            w->off_bytes[tensor] + first * elem_bytes, bytes,
                            n_bytes);
}

mm_status mm_weights_writer_write(mm_weights_writer *writer, int64_t lo,
                                  int64_t hi, const float *values)
{
    const mm_tensor_table *table = writer->table;
    if (lo < 0 || lo > hi || hi > table->n_elems)
        return mm_fail(MM_E_ARG, "%s: no elements [%lld, %lld) among %lld",
                       writer->path, (long long)lo, (long long)hi,
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
            MM_TRY(write_piece(writer, i, at - t->off_elems, n,
                               values + (at - lo)));
        }
    }
    return MM_OK;
}

/* What this rank wrote reaches the disk before any name says so. */
static mm_status flush(mm_weights_writer *w)
{
    mm_status st = MM_OK;
    if (fsync(w->fd) != 0)
        st = mm_fail_errno("cannot flush %s to the disk", w->tmp_path);
    if (close(w->fd) != 0 && st == MM_OK)
        st = mm_fail_errno("cannot write %s", w->tmp_path);
    w->fd = -1;
    return st;
}

static mm_status finish(const mm_weights_writer *w, const uint32_t *crc,
                        const char *model, const char *provenance)
{
    if (w->content.format->finish)
        MM_TRY(w->content.format->finish(w, crc, model, provenance));
    return mm_file_commit(w->tmp_path, w->path);
}

mm_status mm_weights_writer_commit(mm_weights_writer **writer, mm_status status,
                                   const char *model, const char *provenance)
{
    MM_TRY(MM_CHECK_CALL((*writer)->comm));
    mm_weights_writer *w = *writer;
    mm_comm *comm = w->comm;
    uint32_t *crc = NULL;
    mm_status st = status;

    if (st == MM_OK)
        st = flush(w);
    if (st == MM_OK) {
        crc = calloc((size_t)w->table->n_tensors + 1, sizeof *crc);
        if (!crc)
            st = mm_fail(MM_E_MEMORY, "%s: no memory for checksums", w->path);
    }
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    MM_TRY_GOTO(st, done, mm_checksum_combine(&w->sum, comm, crc));
    if (is_root(w))
        st = finish(w, crc, model, provenance);
    st = mm_comm_agree(comm, st);
done:
    if (st != MM_OK)
        remove_tmp(w, st);
    free(crc);
    destroy(w);
    *writer = NULL;
    return st;
}
