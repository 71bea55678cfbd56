/* Opens weights files: which reader reads a file is decided by its content. */

#include "io/weights/weights_reader.h"

#include "io/file.h"
#include "io/hdf5/hdf5_util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static mm_status open_index(mm_weights *weights);

static mm_status append_file(mm_weights *weights, const char *path)
{
    int n = weights->n_files;
    mm_weights_file *grown =
        realloc(weights->files, ((size_t)n + 1) * sizeof *grown);
    if (!grown)
        return mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    weights->files = grown;
    weights->file = &grown[n];
    *weights->file = (mm_weights_file){.path = strdup(path), .fd = -1};
    weights->n_files++;
    if (!weights->file->path)
        return mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    return MM_OK;
}

static mm_status open_descriptor(mm_weights_file *file)
{
    struct stat info;
    /* Not opened before it is known to be a file: a FIFO would wait. */
    if (stat(file->path, &info) != 0)
        return mm_fail_errno("cannot open %s", file->path);
    if (!S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "%s is not a regular file", file->path);
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return mm_fail_errno("cannot open %s", file->path);
    file->n_bytes = info.st_size;
    return MM_OK;
}

/* How a legacy file of torch.save starts: a pickle of the number
 * 0x1950a86a20f9469cfc6c. */
static const char legacy_start[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9";

static mm_status refuse(const mm_weights_file *file, const char *start)
{
    char magic[6] = {0};
    if (file->n_bytes > 262)
        MM_TRY(mm_file_read_at(file->fd, file->path, 257, magic, 5));
    if (memcmp(start, legacy_start, 9) == 0 || strcmp(magic, "ustar") == 0)
        return mm_fail(MM_E_FORMAT,
                       "%s was written in torch.save's old format; re-save it "
                       "with PyTorch 1.6 or newer: torch.save(torch.load(OLD, "
                       "map_location=\"cpu\"), NEW)",
                       file->path);
    return mm_fail(MM_E_FORMAT,
                   "%s is neither HDF5 nor safetensors, nor a zip file of "
                   "PyTorch, nor an index of such files",
                   file->path);
}

/** Open path as weights->file and have its reader read it. */
static mm_status open_file(mm_weights *weights, const char *path)
{
    char start[10] = {0};
    MM_TRY(append_file(weights, path));
    mm_weights_file *file = weights->file;
    MM_TRY(open_descriptor(file));
    if (!weights->index && mm_h5_is_file(file->fd))
        return mm_weights_read_hdf5(weights);
    if (file->n_bytes < 9)
        return mm_fail(MM_E_FORMAT, "%s is truncated: it has %lld bytes", path,
                       (long long)file->n_bytes);
    MM_TRY(mm_file_read_at(file->fd, path, 0, start, 9));
    /* A text has no zeros, and a header's length has: it fits in four bytes. */
    if (!weights->index && strlen(start) == 9 &&
        start[strspn(start, " \t\r\n")] == '{')
        return open_index(weights);
    if (start[8] == '{')
        return mm_weights_read_safetensors(weights);
    if (memcmp(start, "PK\3\4", 4) == 0)
        return mm_weights_read_torch(weights);
    return refuse(file, start);
}

/** As a reader, for the index that weights->file is: reads all its files. They
 * are not indexes themselves, so this ends. */
static mm_status open_index(mm_weights *weights)
{
    mm_weights_index *index = NULL;
    mm_status st;
    MM_TRY_GOTO(st, done, mm_weights_index_read(weights->path, &index));
    weights->index = index;
    for (int i = 0; i < mm_weights_index_n_files(index); i++) {
        weights->index_file = i;
        st = open_file(weights, mm_weights_index_path(index, i));
        if (st == MM_E_IO)
            mm_fail_within(st, "%s", weights->path);
        MM_TRY_GOTO(st, done, st);
    }
    st = mm_weights_index_check_complete(index, &weights->table);
done:
    weights->index = NULL;
    mm_weights_index_destroy(&index);
    return st;
}

mm_status mm_weights_open(const char *path, mm_weights **weights)
{
    mm_weights *w = calloc(1, sizeof *w);
    mm_status st = MM_OK;
    if (!w)
        return mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    w->bound = &w->table;
    w->gathered = -1;
    w->path = strdup(path);
    if (!w->path)
        st = mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    if (st == MM_OK)
        st = open_file(w, path);
    if (st == MM_OK)
        st = mm_checksum_begin(&w->sum, w->bound);
    if (st != MM_OK)
        mm_weights_close(&w);
    *weights = w;
    return st;
}

mm_status mm_weights_load(const char *path, const mm_tensor_table *wanted,
                          float *out)
{
    mm_weights *weights = NULL;
    mm_status st;
    MM_TRY_GOTO(st, done, mm_weights_open(path, &weights));
    MM_TRY_GOTO(st, done, mm_weights_bind(weights, wanted));
    MM_TRY_GOTO(st, done, mm_weights_read(weights, 0, wanted->n_elems, out));
    st = mm_weights_verify(weights, NULL);
done:
    mm_weights_close(&weights);
    return st;
}
