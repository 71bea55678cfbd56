#include "io/checkpoint.h"

#include "comm/partition.h"
#include "io/checksum.h"
#include "io/convert.h"
#include "io/file.h"
#include "io/hdf5_util.h"
#include "io/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PIECE_ELEMS = 1 << 18, /* checked, summed up, written while in the cache */
    MAX_ATTRIBUTE_BYTES = 60 << 10, /* HDF5 refuses 64 KiB */
    METADATA_BYTES = 1 << 16,       /* more than HDF5 needs at first */
    TENSOR_METADATA_BYTES = 1 << 10
};

struct mm_checkpoint {
    mm_comm *comm;
    const mm_tensor_table *table;
    char *path, *tmp_path;
    int fd;
    int64_t *off_bytes; /* [n_tensors] in the file */
    mm_checksum sum;
};

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
    free(cp->off_bytes);
    free(cp->tmp_path);
    free(cp->path);
    free(cp);
}

static mm_status check_table(const char *path, const mm_tensor_table *table)
{
    if (table->n_elems > INT64_MAX / 8)
        return mm_fail(MM_E_ARG, "%s: too many elements", path);
    for (int i = 0; i < table->n_tensors; i++) {
        const char *name = table->tensors[i].name;
        if (!*name || strcmp(name, ".") == 0 || strpbrk(name, "/\n"))
            return mm_fail(MM_E_ARG,
                           "%s: a tensor cannot be named \"%s\" in a file",
                           path, name);
    }
    return MM_OK;
}

static mm_status prepare(mm_comm *comm, const char *path,
                         const mm_tensor_table *table, mm_checkpoint **cp)
{
    MM_TRY(check_table(path, table));
    mm_checkpoint *c = calloc(1, sizeof *c);
    *cp = c;
    if (!c)
        return mm_fail(MM_E_MEMORY, "%s: no memory to write it", path);
    c->comm = comm;
    c->table = table;
    c->fd = -1;
    c->path = strdup(path);
    if (asprintf(&c->tmp_path, "%s.tmp", path) < 0)
        c->tmp_path = NULL;
    c->off_bytes = calloc((size_t)table->n_tensors + 1, sizeof *c->off_bytes);
    if (!c->path || !c->tmp_path || !c->off_bytes)
        return mm_fail(MM_E_MEMORY, "%s: no memory to write it", path);
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

/* Whether the file can be made and has room; HDF5 would say it less clearly. */
static mm_status probe(const mm_checkpoint *cp)
{
    struct stat info;
    if (stat(cp->path, &info) == 0 && !S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "cannot write %s: it is no regular file",
                       cp->path);
    int fd = open(cp->tmp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return mm_fail_errno("cannot create %s", cp->tmp_path);
    int64_t n_bytes = cp->table->n_elems * 4 + METADATA_BYTES +
                      (int64_t)cp->table->n_tensors * TENSOR_METADATA_BYTES;
    mm_status st = reserve(cp, fd, n_bytes);
    close(fd);
    return st;
}

static mm_status create_dataset(mm_checkpoint *cp, hid_t group,
                                hid_t properties, int tensor)
{
    const mm_tensor *t = &cp->table->tensors[tensor];
    hid_t space = MM_H5_NONE, dataset = MM_H5_NONE;
    hsize_t dims[MM_MAX_DIMS];
    mm_status st;

    for (int i = 0; i < t->n_dims; i++)
        dims[i] = (hsize_t)t->shape[i];
    MM_TRY_GOTO(st, done,
                MM_H5_GET(space, cp->tmp_path, "bad shape",
                          t->n_dims ? H5Screate_simple(t->n_dims, dims, NULL)
                                    : H5Screate(H5S_SCALAR)));
    MM_TRY_GOTO(st, done,
                MM_H5_GET(dataset, cp->tmp_path, "cannot create a dataset",
                          H5Dcreate2(group, t->name, H5T_IEEE_F32LE, space,
                                     H5P_DEFAULT, properties, H5P_DEFAULT)));
    cp->off_bytes[tensor] = mm_h5_offset(dataset);
    if (cp->off_bytes[tensor] < 0)
        st = mm_fail(MM_E_IO, "%s: HDF5 gave tensor %s no place", cp->tmp_path,
                     t->name);
done:
    mm_h5_close(&dataset);
    mm_h5_close(&space);
    return st;
}

static mm_status create_group(mm_checkpoint *cp, hid_t file, hid_t *group)
{
    hid_t properties = H5Pcreate(H5P_GROUP_CREATE);
    mm_status st = MM_OK;
    if (properties < 0 || H5Pset_obj_track_times(properties, false) < 0 ||
        H5Pset_link_creation_order(properties, H5P_CRT_ORDER_TRACKED |
                                                   H5P_CRT_ORDER_INDEXED) < 0)
        st = mm_h5_fail(MM_E_IO, cp->tmp_path, "HDF5 refuses its settings");
    if (st == MM_OK)
        st = MM_H5_GET(
            *group, cp->tmp_path, "cannot create a group",
            H5Gcreate2(file, "model", H5P_DEFAULT, properties, H5P_DEFAULT));
    mm_h5_close(&properties);
    return st;
}

/* The file's structure; every tensor has its place, and nothing in it yet. */
static mm_status create_structure(mm_checkpoint *cp)
{
    hid_t file = MM_H5_NONE, group = MM_H5_NONE, properties = MM_H5_NONE;
    mm_status st;

    MM_TRY_GOTO(st, done, probe(cp));
    MM_TRY_GOTO(st, done, mm_h5_create(cp->tmp_path, &file));
    MM_TRY_GOTO(st, done,
                mm_h5_write_text_attribute(cp->tmp_path, file, "format",
                                           "magmax-checkpoint"));
    MM_TRY_GOTO(
        st, done,
        mm_h5_write_int_attribute(cp->tmp_path, file, "format_version", 1));
    MM_TRY_GOTO(st, done, create_group(cp, file, &group));
    MM_TRY_GOTO(st, done, mm_h5_contiguous(cp->tmp_path, &properties));
    for (int i = 0; i < cp->table->n_tensors; i++)
        MM_TRY_GOTO(st, done, create_dataset(cp, group, properties, i));
    mm_h5_close(&group);
    st = mm_h5_finish(cp->tmp_path, &file);
done:
    mm_h5_close(&properties);
    mm_h5_close(&group);
    mm_h5_close(&file);
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

mm_status mm_checkpoint_create(mm_comm *comm, const char *path,
                               const mm_tensor_table *table,
                               mm_checkpoint **checkpoint)
{
    mm_checkpoint *cp = NULL;
    bool made = false;
    mm_status st = prepare(comm, path, table, &cp);

    *checkpoint = NULL;
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    made = true;
    if (is_root(cp))
        st = create_structure(cp);
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
    MM_TRY_GOTO(st, done,
                mm_comm_broadcast(
                    comm, cp->off_bytes,
                    (int64_t)sizeof *cp->off_bytes * table->n_tensors, 0));
    st = open_to_write(cp);
    MM_TRY_GOTO(st, done, mm_comm_agree(comm, st));
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
    int64_t bad = mm_first_nonfinite(values, n);
    if (bad >= 0)
        return mm_fail(MM_E_VALUE,
                       "%s: not written, because element %lld of tensor %s is "
                       "not a finite number",
                       cp->path, (long long)(first + bad), t->name);
    mm_checksum_add(&cp->sum, tensor, values, n * 4);
    return mm_file_write_at(cp->fd, cp->tmp_path,
                            cp->off_bytes[tensor] + first * 4, values, n * 4);
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
    mm_checksum_advance(&checkpoint->sum, lo, hi);
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

static mm_status write_texts(const mm_checkpoint *cp, hid_t file,
                             const char *model, const char *provenance,
                             const char *manifest)
{
    const char *path = cp->tmp_path;
    if (model && strlen(model) < MAX_ATTRIBUTE_BYTES)
        MM_TRY(mm_h5_write_text_attribute(path, file, "model", model));
    else if (model)
        MM_TRY(mm_h5_write_text(path, file, "model_config", model));
    if (provenance)
        MM_TRY(mm_h5_write_text(path, file, "provenance", provenance));
    return mm_h5_write_text(path, file, "manifest", manifest);
}

static mm_status finish(const mm_checkpoint *cp, const uint32_t *crc,
                        const char *model, const char *provenance)
{
    bool long_model = model && strlen(model) >= MAX_ATTRIBUTE_BYTES;
    const char *const names[] = {"/model_config", "/provenance", NULL};
    const char *const texts[] = {long_model ? model : NULL, provenance, NULL};
    char *manifest = NULL;
    hid_t file = MM_H5_NONE;
    mm_status st;

    MM_TRY_GOTO(st, done,
                mm_manifest_write(cp->table, crc, names, texts, &manifest));
    MM_TRY_GOTO(st, done, mm_h5_open(cp->tmp_path, true, &file));
    MM_TRY_GOTO(st, done, write_texts(cp, file, model, provenance, manifest));
    MM_TRY_GOTO(st, done, mm_h5_finish(cp->tmp_path, &file));
    st = mm_file_commit(cp->tmp_path, cp->path);
done:
    mm_h5_close(&file);
    free(manifest);
    return st;
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

mm_status mm_checkpoint_commit(mm_checkpoint **checkpoint, mm_status status,
                               const char *model, const char *provenance)
{
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
    mm_checkpoint *cp;
    MM_TRY(mm_checkpoint_create(comm, path, table, &cp));
    mm_range own =
        mm_partition(table->n_elems, mm_comm_rank(comm), mm_comm_n_ranks(comm));
    mm_status st = mm_checkpoint_write(cp, own.lo, own.hi, values + own.lo);
    return mm_checkpoint_commit(&cp, st, model, provenance);
}
