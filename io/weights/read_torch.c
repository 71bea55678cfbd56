/* Reads which tensors a file of torch.save or torch.jit.save contains and where
 * their bytes are, with the archive, the names and the tensors each read by a
 * torch_*.c. */

#include "io/weights/torch_names.h"
#include "io/weights/torch_tensor.h"
#include "io/weights/torch_zip.h"
#include "io/weights/weights_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PICKLE_BYTES = 64 << 20 };

/* Records written on machines with the other byte order say so. */
static mm_status check_byte_order(mm_torch_zip *zip)
{
    char *order;
    int64_t n_bytes;
    if (!mm_torch_zip_has(zip, "byteorder"))
        return MM_OK;
    MM_TRY(mm_torch_zip_read(zip, "byteorder", 64, &order, &n_bytes));
    bool little = n_bytes == 6 && memcmp(order, "little", 6) == 0;
    free(order);
    if (!little)
        return mm_fail(MM_E_FORMAT,
                       "written on a machine of another byte order; save it "
                       "again on a little-endian one");
    return MM_OK;
}

static mm_status locate(mm_torch_zip *zip, mm_pickle_text storage,
                        mm_torch_record *record)
{
    char name[300];
    if (storage.n_bytes > 256 ||
        memchr(storage.data, 0, (size_t)storage.n_bytes))
        return mm_fail(MM_E_FORMAT, "its storage has an impossible name");
    snprintf(name, sizeof name, "data/%.*s", (int)storage.n_bytes,
             storage.data);
    return mm_torch_zip_locate(zip, name, record);
}

/* A tensor that is not all of its storage: the archive's checksum does not tell
 * about it alone. */
static mm_status add_stretch(mm_weights *weights, const mm_torch_record *record,
                             int tensor)
{
    int n = weights->n_stretches;
    if ((n & (n - 1)) == 0) {
        size_t capacity = n ? 2 * (size_t)n : 1;
        mm_stretch *grown =
            realloc(weights->stretches, capacity * sizeof *grown);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for checksums");
        weights->stretches = grown;
    }
    weights->stretches[n] = (mm_stretch){
        .file = weights->sources[tensor].file,
        .off_bytes = record->off_bytes,
        .n_bytes = record->n_bytes,
        .crc = record->crc,
        .tensor = tensor,
    };
    weights->n_stretches++;
    weights->has_checksums = true;
    return MM_OK;
}

/* What a tensor is, where it lies, and the record of its storage. */
static mm_status describe(mm_torch_zip *zip, const mm_pickle_value *value,
                          mm_torch_tensor *t, mm_torch_record *record)
{
    int64_t n_bytes;
    MM_TRY(mm_torch_tensor_read(value, t));
    MM_TRY(locate(zip, t->storage, record));
    if (__builtin_mul_overflow(t->storage_elems, mm_elem_n_bytes(t->type),
                               &n_bytes) ||
        n_bytes > record->n_bytes)
        return mm_fail(MM_E_FORMAT,
                       "its storage claims %lld elements, but has %lld bytes",
                       (long long)t->storage_elems, (long long)record->n_bytes);
    return MM_OK;
}

static mm_status add_tensor(mm_weights *weights, mm_torch_zip *zip,
                            const char *name, const mm_pickle_value *value)
{
    mm_torch_tensor t;
    mm_torch_record record;
    mm_status st = describe(zip, value, &t, &record);
    if (st != MM_OK)
        return mm_fail_within(st, "%s: tensor %s", weights->file->path, name);
    int64_t elem_bytes = mm_elem_n_bytes(t.type);
    bool whole = t.is_contiguous && t.n_elems * elem_bytes == record.n_bytes;
    mm_source source = {
        .off_bytes = record.off_bytes + t.off_elems * elem_bytes,
        .type = t.type,
        .strided = !t.is_contiguous,
        .span_elems = t.span_elems,
        .has_crc = whole && t.n_elems > 0,
        .crc = record.crc,
    };
    memcpy(source.strides, t.strides, sizeof source.strides);
    memcpy(source.type_name, t.type_name, sizeof source.type_name);
    int n_tensors = weights->table.n_tensors;
    MM_TRY(mm_weights_add(weights, name, t.n_dims, t.shape, &source));
    bool is_listed = weights->table.n_tensors > n_tensors; /* by an index */
    if (!is_listed || whole || t.n_elems == 0)
        return MM_OK;
    return add_stretch(weights, &record, n_tensors);
}

static int by_place(const void *a, const void *b)
{
    const mm_stretch *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->off_bytes != y->off_bytes)
        return x->off_bytes < y->off_bytes ? -1 : 1;
    return x->tensor - y->tensor;
}

/* Many tensors may share a storage; one look at it is enough. */
static void drop_repeated_stretches(mm_weights *weights)
{
    mm_stretch *stretches = weights->stretches;
    int kept = 0;
    if (weights->n_stretches == 0)
        return;
    qsort(stretches, (size_t)weights->n_stretches, sizeof *stretches, by_place);
    for (int i = 1; i < weights->n_stretches; i++)
        if (stretches[i].file != stretches[kept].file ||
            stretches[i].off_bytes != stretches[kept].off_bytes)
            stretches[++kept] = stretches[i];
    weights->n_stretches = kept + 1;
}

/* The archive's pickle, and the tensors in it. */
static mm_status read_names(mm_torch_zip *zip, char **data, mm_pickle **pickle,
                            mm_torch_names *names)
{
    int64_t n_bytes;
    MM_TRY(check_byte_order(zip));
    MM_TRY(
        mm_torch_zip_read(zip, "data.pkl", MAX_PICKLE_BYTES, data, &n_bytes));
    MM_TRY(mm_pickle_read(*data, n_bytes, mm_torch_callables, pickle));
    return mm_torch_names_read(mm_pickle_root(*pickle),
                               mm_torch_zip_has(zip, "constants.pkl"), names);
}

mm_status mm_weights_read_torch(mm_weights *weights)
{
    const mm_weights_file *file = weights->file;
    mm_torch_zip *zip = NULL;
    mm_pickle *pickle = NULL;
    mm_torch_names names = {0};
    char *data = NULL;

    mm_status st = mm_torch_zip_open(file->fd, file->n_bytes, &zip);
    if (st == MM_OK)
        st = read_names(zip, &data, &pickle, &names);
    if (st != MM_OK)
        mm_fail_within(st, "%s", file->path);
    weights->kind = names.kind;
    for (int i = 0; st == MM_OK && i < names.n_entries; i++)
        st = add_tensor(weights, zip, names.entries[i].name,
                        names.entries[i].tensor);
    drop_repeated_stretches(weights);
    mm_torch_names_clear(&names);
    mm_pickle_destroy(&pickle);
    free(data);
    mm_torch_zip_close(&zip);
    return st;
}
