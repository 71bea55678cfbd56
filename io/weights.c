#include "io/weights_impl.h"

#include "io/file.h"
#include "io/hdf5_util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Read, sum up and check in pieces that stay in the cache. */
enum { PIECE_BYTES = 1 << 20 };

mm_status mm_weights_add(mm_weights *weights, const char *name, int n_dims,
                         const int64_t *shape, const mm_source *source)
{
    mm_tensor_table *table = &weights->table;
    int n = table->n_tensors;
    if (n >= MM_MAX_TENSORS)
        return mm_fail(MM_E_FORMAT, "%s holds more than %d tensors",
                       weights->path, MM_MAX_TENSORS);
    if ((n & (n - 1)) == 0) {
        size_t capacity = n ? 2 * (size_t)n : 1;
        mm_source *grown =
            realloc(weights->sources, capacity * sizeof *weights->sources);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for a table of tensors");
        weights->sources = grown;
    }
    mm_status st = mm_tensor_table_add(table, name, n_dims, shape);
    if (st != MM_OK)
        return mm_fail_within(st == MM_E_ARG ? MM_E_FORMAT : st, "%s",
                              weights->path);
    weights->sources[n] = *source;

    int64_t n_bytes, end;
    if (__builtin_mul_overflow(table->tensors[n].n_elems,
                               mm_elem_n_bytes(source->type), &n_bytes) ||
        __builtin_add_overflow(source->off_bytes, n_bytes, &end) ||
        source->off_bytes < 0 || end > weights->n_bytes)
        return mm_fail(MM_E_FORMAT,
                       "%s is truncated: tensor %s lies beyond its end",
                       weights->path, name);
    return MM_OK;
}

static mm_status open_file(mm_weights *weights)
{
    struct stat info;
    /* Not opened before it is known to be a file: a FIFO would wait. */
    if (stat(weights->path, &info) != 0)
        return mm_fail_errno("cannot open %s", weights->path);
    if (!S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "%s is no regular file", weights->path);
    weights->fd = open(weights->path, O_RDONLY | O_CLOEXEC);
    if (weights->fd < 0 || fstat(weights->fd, &info) != 0)
        return mm_fail_errno("cannot open %s", weights->path);
    weights->n_bytes = info.st_size;
    return MM_OK;
}

static mm_status open_format(mm_weights *weights)
{
    char start[9] = {0};
    MM_TRY(open_file(weights));
    if (mm_h5_is_file(weights->fd))
        return mm_weights_open_hdf5(weights);
    if (weights->n_bytes < 9)
        return mm_fail(MM_E_FORMAT, "%s is truncated: it has %lld bytes",
                       weights->path, (long long)weights->n_bytes);
    MM_TRY(mm_file_read_at(weights->fd, weights->path, 0, start, 9));
    if (start[8] == '{')
        return mm_weights_open_safetensors(weights);
    if (memcmp(start, "PK\3\4", 4) == 0)
        return mm_fail(MM_E_FORMAT,
                       "%s is a zip file, as PyTorch writes them; convert it "
                       "to safetensors first",
                       weights->path);
    return mm_fail(MM_E_FORMAT, "%s is neither HDF5 nor safetensors",
                   weights->path);
}

mm_status mm_weights_open(const char *path, mm_weights **weights)
{
    mm_weights *w = calloc(1, sizeof *w);
    mm_status st = MM_OK;
    if (!w)
        return mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    w->fd = -1;
    w->bound = &w->table;
    w->path = strdup(path);
    w->buffer = malloc(PIECE_BYTES);
    if (!w->path || !w->buffer)
        st = mm_fail(MM_E_MEMORY, "%s: no memory to open it", path);
    if (st == MM_OK)
        st = open_format(w);
    if (st == MM_OK)
        st = mm_checksum_begin(&w->sum, w->bound);
    if (st != MM_OK)
        mm_weights_close(&w);
    *weights = w;
    return st;
}

void mm_weights_close(mm_weights **weights)
{
    mm_weights *w = *weights;
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    mm_checksum_end(&w->sum);
    mm_tensor_table_clear(&w->table);
    free(w->buffer);
    free(w->found);
    free(w->provenance);
    free(w->model);
    free(w->expected);
    free(w->sources);
    free(w->path);
    free(w);
    *weights = NULL;
}

const char *mm_weights_path(const mm_weights *weights)
{
    return weights->path;
}

const mm_tensor_table *mm_weights_table(const mm_weights *weights)
{
    return &weights->table;
}

const char *mm_weights_model(const mm_weights *weights)
{
    return weights->model;
}

const char *mm_weights_provenance(const mm_weights *weights)
{
    return weights->provenance;
}

static mm_status find_all(const mm_weights *w, const mm_tensor_table *wanted,
                          int *found)
{
    for (int i = 0; i < wanted->n_tensors; i++) {
        const mm_tensor *tensor = &wanted->tensors[i];
        found[i] = mm_tensor_table_find(&w->table, tensor->name);
        if (found[i] < 0)
            return mm_fail(MM_E_FORMAT, "%s lacks the tensor %s", w->path,
                           tensor->name);
        const mm_tensor *there = &w->table.tensors[found[i]];
        if (!mm_tensor_same_shape(tensor, there)) {
            char has[192], needs[192];
            mm_tensor_shape_text(there, has);
            mm_tensor_shape_text(tensor, needs);
            return mm_fail(MM_E_FORMAT,
                           "%s: tensor %s has shape %s, but the model needs %s",
                           w->path, tensor->name, has, needs);
        }
    }
    return MM_OK;
}

/* A model of another architecture has more blocks, say; what it has beside the
 * image tower is nobody's concern here. */
static mm_status refuse_surplus(const mm_weights *w,
                                const mm_tensor_table *wanted)
{
    bool any_visual = false;
    for (int i = 0; i < wanted->n_tensors && !any_visual; i++)
        any_visual = mm_tensor_is_visual(&wanted->tensors[i]);
    for (int i = 0; any_visual && i < w->table.n_tensors; i++) {
        const mm_tensor *tensor = &w->table.tensors[i];
        if (mm_tensor_is_visual(tensor) &&
            mm_tensor_table_find(wanted, tensor->name) < 0)
            return mm_fail(MM_E_FORMAT,
                           "%s has a tensor %s that the model lacks", w->path,
                           tensor->name);
    }
    return MM_OK;
}

mm_status mm_weights_bind(mm_weights *weights, const mm_tensor_table *wanted)
{
    int *found = calloc((size_t)wanted->n_tensors + 1, sizeof *found);
    mm_checksum sum = {0};
    mm_status st = MM_OK;

    if (!found)
        MM_TRY_GOTO(st, done, mm_fail(MM_E_MEMORY, "no memory for a table"));
    MM_TRY_GOTO(st, done, find_all(weights, wanted, found));
    MM_TRY_GOTO(st, done, refuse_surplus(weights, wanted));
    MM_TRY_GOTO(st, done, mm_checksum_begin(&sum, wanted));
    mm_checksum_end(&weights->sum);
    free(weights->found);
    weights->sum = sum;
    weights->found = found;
    weights->bound = wanted;
    found = NULL;
done:
    free(found);
    return st;
}

/* Elements [first, first + n) of a bound tensor, which fit into one piece. */
static mm_status read_piece(mm_weights *w, int bound, int64_t first, int64_t n,
                            float *out)
{
    int tensor = w->found ? w->found[bound] : bound;
    const mm_source *source = &w->sources[tensor];
    int elem_bytes = mm_elem_n_bytes(source->type);
    /* fp32 goes straight to where it is wanted. */
    void *bytes = source->type == MM_ELEM_F32 ? out : w->buffer;
    MM_TRY(mm_file_read_at(w->fd, w->path,
                           source->off_bytes + first * elem_bytes, bytes,
                           n * elem_bytes));
    if (w->expected)
        mm_checksum_add(&w->sum, bound, bytes, n * elem_bytes);
    if (bytes != out)
        mm_convert_to_f32(source->type, bytes, out, n);
    int64_t bad = mm_first_nonfinite(out, n);
    if (bad >= 0)
        return mm_fail(
            MM_E_VALUE, "%s: element %lld of tensor %s is not a finite number",
            w->path, (long long)(first + bad), w->table.tensors[tensor].name);
    return MM_OK;
}

static mm_status read_tensor(mm_weights *w, int bound, int64_t first, int64_t n,
                             float *out)
{
    int tensor = w->found ? w->found[bound] : bound;
    const mm_source *source = &w->sources[tensor];
    if (source->type == MM_ELEM_OTHER)
        return mm_fail(MM_E_FORMAT,
                       "%s: tensor %s has type %s, and weights are F64, F32, "
                       "F16 or BF16, little-endian",
                       w->path, w->table.tensors[tensor].name,
                       source->type_name);
    int64_t piece = PIECE_BYTES / mm_elem_n_bytes(source->type);
    for (int64_t at = 0; at < n; at += piece)
        MM_TRY(read_piece(w, bound, first + at, n - at < piece ? n - at : piece,
                          out + at));
    return MM_OK;
}

mm_status mm_weights_read(mm_weights *weights, int64_t lo, int64_t hi,
                          float *out)
{
    const mm_tensor_table *table = weights->bound;
    if (lo < 0 || lo > hi || hi > table->n_elems)
        return mm_fail(MM_E_ARG, "%s: no elements [%lld, %lld) among %lld",
                       weights->path, (long long)lo, (long long)hi,
                       (long long)table->n_elems);
    if (lo == hi)
        return MM_OK;
    mm_checksum_advance(&weights->sum, lo, hi);
    for (int i = mm_tensor_table_at(table, lo);
         i < table->n_tensors && table->tensors[i].off_elems < hi; i++) {
        const mm_tensor *tensor = &table->tensors[i];
        int64_t begin = tensor->off_elems > lo ? tensor->off_elems : lo;
        int64_t end = tensor->off_elems + tensor->n_elems;
        if (end > hi)
            end = hi;
        MM_TRY(read_tensor(weights, i, begin - tensor->off_elems, end - begin,
                           out + (begin - lo)));
    }
    return MM_OK;
}

mm_status mm_weights_verify(mm_weights *weights, mm_comm *comm)
{
    if (!weights->expected)
        return MM_OK;
    const mm_tensor_table *table = weights->bound;
    uint32_t *crc = calloc((size_t)table->n_tensors + 1, sizeof *crc);
    mm_status st = MM_OK;
    if (!crc)
        st = mm_fail(MM_E_MEMORY, "%s: no memory for checksums", weights->path);
    if (comm)
        st = mm_comm_agree(comm, st);
    if (st == MM_OK)
        st = mm_checksum_combine(&weights->sum, comm, crc);
    for (int i = 0; st == MM_OK && i < table->n_tensors; i++) {
        int tensor = weights->found ? weights->found[i] : i;
        if (crc[i] != weights->expected[tensor])
            st = mm_fail(MM_E_FORMAT,
                         "%s is damaged: the checksum of tensor %s is %08x, "
                         "and was %08x when it was written",
                         weights->path, table->tensors[i].name, crc[i],
                         weights->expected[tensor]);
    }
    mm_checksum_restart(&weights->sum);
    free(crc);
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
