/* Reads elements of an open weights file as fp32, whatever the file's format,
 * and verifies the checksums that the file has. */

#include "comm/check_same.h"
#include "io/file.h"
#include "io/weights/weights_reader.h"

#include <stdlib.h>
#include <string.h>

static int tensor_of(const mm_weights *w, int bound)
{
    return w->found ? w->found[bound] : bound;
}

static mm_status read_bytes(const mm_weights *w, int file, int64_t off_bytes,
                            void *bytes, int64_t n_bytes)
{
    const mm_weights_file *f = &w->files[file];
    return mm_file_read_at(f->fd, f->path, off_bytes, bytes, n_bytes);
}

/* Where bytes go before they are converted or only looked at. */
static mm_status need_buffer(mm_weights *w)
{
    if (!w->buffer)
        w->buffer = malloc(MM_WEIGHTS_PIECE_BYTES);
    if (!w->buffer)
        return mm_fail(MM_E_MEMORY, "%s: no memory to read it", w->path);
    return MM_OK;
}

/* All bytes that a strided tensor lies among, once. */
static mm_status read_span(mm_weights *w, int tensor)
{
    const mm_source *source = &w->sources[tensor];
    int64_t n_bytes = source->span_elems * mm_elem_n_bytes(source->type);
    if (w->gathered == tensor)
        return MM_OK;
    w->gathered = -1;
    free(w->span);
    w->span = malloc((size_t)n_bytes);
    if (!w->span)
        return mm_fail(MM_E_MEMORY, "%s: no memory for tensor %s", w->path,
                       w->table.tensors[tensor].name);
    MM_TRY(read_bytes(w, source->file, source->off_bytes, w->span, n_bytes));
    w->gathered = tensor;
    return MM_OK;
}

#define COPY_STRIDED(type)                       \
    do {                                         \
        const type *from_ = from;                \
        type *to_ = to;                          \
        for (int64_t i_ = 0; i_ < n_elems; i_++) \
            to_[i_] = from_[i_ * stride];        \
    } while (0)

static void copy_strided(const void *from, int64_t stride, int elem_bytes,
                         void *to, int64_t n_elems)
{
    if (stride == 1)
        memcpy(to, from, (size_t)(n_elems * elem_bytes));
    else if (elem_bytes == 8)
        COPY_STRIDED(uint64_t);
    else if (elem_bytes == 4)
        COPY_STRIDED(uint32_t);
    else if (elem_bytes == 2)
        COPY_STRIDED(uint16_t);
    else
        COPY_STRIDED(uint8_t);
}

/* Elements [first, first + n) in the order of their indices, row by row. */
static mm_status gather(mm_weights *w, int tensor, int64_t first, int64_t n,
                        char *to)
{
    const mm_tensor *t = &w->table.tensors[tensor];
    const mm_source *source = &w->sources[tensor];
    int elem_bytes = mm_elem_n_bytes(source->type);
    int last = t->n_dims - 1; /* a scalar is never strided */
    MM_TRY(read_span(w, tensor));
    while (n > 0) {
        int64_t at = 0, rest = first;
        for (int i = last; i >= 0; i--) {
            at += rest % t->shape[i] * source->strides[i];
            rest /= t->shape[i];
        }
        int64_t row = t->shape[last] - first % t->shape[last];
        if (row > n)
            row = n;
        copy_strided(w->span + at * elem_bytes, source->strides[last],
                     elem_bytes, to, row);
        to += row * elem_bytes;
        first += row;
        n -= row;
    }
    return MM_OK;
}

/* Elements [first, first + n) of a bound tensor, which fit into one piece. */
static mm_status read_piece(mm_weights *w, int bound, int64_t first, int64_t n,
                            float *out)
{
    int tensor = tensor_of(w, bound);
    const mm_source *source = &w->sources[tensor];
    int64_t elem_bytes = mm_elem_n_bytes(source->type);
    void *bytes = out; /* fp32 goes straight to where it is wanted */
    if (source->type != MM_ELEM_F32) {
        MM_TRY(need_buffer(w));
        bytes = w->buffer;
    }
    if (source->strided)
        MM_TRY(gather(w, tensor, first, n, bytes));
    else
        MM_TRY(read_bytes(w, source->file,
                          source->off_bytes + first * elem_bytes, bytes,
                          n * elem_bytes));
    if (w->has_checksums)
        MM_TRY(mm_checksum_add(&w->sum, bound, first, n,
                               source->has_crc ? bytes : NULL, n * elem_bytes));
    if (bytes != out)
        mm_elem_to_f32(source->type, bytes, out, n);
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
    int tensor = tensor_of(w, bound);
    const mm_source *source = &w->sources[tensor];
    if (source->type == MM_ELEM_OTHER)
        return mm_fail(
            MM_E_FORMAT, "%s: tensor %s has type %s, which weights cannot have",
            w->path, w->table.tensors[tensor].name, source->type_name);
    int64_t piece = MM_WEIGHTS_PIECE_BYTES / mm_elem_n_bytes(source->type);
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

static mm_status damaged(const mm_weights *w, int tensor, uint32_t crc,
                         uint32_t expected)
{
    return mm_fail(MM_E_FORMAT,
                   "%s is damaged: the checksum of tensor %s is %08x, and was "
                   "%08x when it was written%s",
                   w->files[w->sources[tensor].file].path,
                   w->table.tensors[tensor].name, crc, expected,
                   w->kind >= MM_WEIGHTS_TORCH_DICT
                       ? " (or torch.save was set not to compute "
                         "checksums: then save it again with them)"
                       : "");
}

/* Checksums of bytes that tensors share or use in part: read once more. */
static mm_status check_stretches(mm_weights *w, int rank, int n_ranks)
{
    if (w->n_stretches > 0)
        MM_TRY(need_buffer(w));
    for (int i = rank; i < w->n_stretches; i += n_ranks) {
        const mm_stretch *s = &w->stretches[i];
        uint32_t crc = 0;
        for (int64_t at = 0; at < s->n_bytes; at += MM_WEIGHTS_PIECE_BYTES) {
            int64_t n = s->n_bytes - at;
            if (n > MM_WEIGHTS_PIECE_BYTES)
                n = MM_WEIGHTS_PIECE_BYTES;
            MM_TRY(read_bytes(w, s->file, s->off_bytes + at, w->buffer, n));
            crc = mm_crc32_continue(crc, w->buffer, n);
        }
        if (crc != s->crc)
            return damaged(w, s->tensor, crc, s->crc);
    }
    return MM_OK;
}

static mm_status check_tensors(const mm_weights *w, const uint32_t *crc)
{
    for (int i = 0; i < w->bound->n_tensors; i++) {
        int tensor = tensor_of(w, i);
        const mm_source *source = &w->sources[tensor];
        if (source->has_crc && crc[i] != source->crc)
            return damaged(w, tensor, crc[i], source->crc);
    }
    return MM_OK;
}

mm_status mm_weights_verify(mm_weights *weights, mm_comm *comm)
{
    MM_TRY(MM_CHECK_CALL(comm));
    if (!weights->has_checksums)
        return MM_OK;
    int n_tensors = weights->bound->n_tensors;
    uint32_t *crc = calloc((size_t)n_tensors + 1, sizeof *crc);
    mm_status st = MM_OK;
    if (!crc)
        st = mm_fail(MM_E_MEMORY, "%s: no memory for checksums", weights->path);
    /* Tensors that no rank read count as unchanged. */
    for (int i = 0; crc && i < n_tensors; i++)
        crc[i] = weights->sources[tensor_of(weights, i)].crc;
    if (st == MM_OK)
        st = check_stretches(weights, comm ? mm_comm_rank(comm) : 0,
                             comm ? mm_comm_n_ranks(comm) : 1);
    if (comm)
        st = mm_comm_agree(comm, st);
    if (st == MM_OK)
        st = mm_checksum_combine(&weights->sum, comm, crc);
    if (st == MM_OK)
        st = check_tensors(weights, crc);
    mm_checksum_restart(&weights->sum);
    free(crc);
    return st;
}
