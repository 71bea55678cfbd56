/* What test_files.py has the io layer do:
 *
 *   file_tool copy IN OUT          any weights -> checkpoint
 *   file_tool floats IN OUT        any weights -> raw fp32; prints the table
 *   file_tool kind IN              any weights: prints the kind of file and the
 *                                  tensors' number types
 *   file_tool scattered IN OUT     as floats, tensors in reverse order, each
 *                                  from its middle on and then the rest
 *   file_tool safetensors TYPE IN OUT
 *                                  any weights -> safetensors of F32, ...
 *   file_tool dataset IN OUT       images -> raw bytes, train then test; prints
 *                                  sizes, labels and names
 *   file_tool pack IN OUT          images -> packed data set
 *   file_tool arrays OUT           a small file of arrays
 *
 * A failure is printed and exits with its mm_status. */
#include "io/dataset/dataset.h"
#include "io/hdf5/array_file.h"
#include "io/weights/weights.h"
#include "io/weights/weights_writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char model[] = "{\"embed_dim\": 32}";
static const char provenance[] = "{\"trained\": \"by a test\"}";

static mm_status read_all(const char *path, mm_weights **weights,
                          float **values)
{
    MM_TRY(mm_weights_open(path, weights));
    int64_t n = mm_weights_table(*weights)->n_elems;
    *values = malloc((size_t)n * sizeof **values + 1);
    MM_TRY(mm_weights_read(*weights, 0, n, *values));
    return mm_weights_verify(*weights, NULL);
}

static void write_raw(const char *path, const void *data, size_t n_bytes,
                      const char *mode)
{
    FILE *out = fopen(path, mode);
    if (!out || (n_bytes && fwrite(data, 1, n_bytes, out) != n_bytes) ||
        fclose(out) != 0)
        exit(100);
}

/* The only one that writes as ranks do. */
static mm_status copy(const char *in, const char *out)
{
    mm_comm *comm = NULL;
    mm_weights *weights = NULL;
    float *values = NULL;
    mm_status st = read_all(in, &weights, &values);
    if (st == MM_OK)
        st = mm_comm_create(NULL, NULL, &comm);
    if (st == MM_OK)
        st = mm_checkpoint_save(comm, out, mm_weights_table(weights), values,
                                model, provenance);
    mm_comm_destroy(&comm);
    free(values);
    mm_weights_close(&weights);
    return st;
}

static mm_status floats(const char *in, const char *out)
{
    mm_weights *weights = NULL;
    float *values = NULL;
    mm_status st = read_all(in, &weights, &values);
    if (st == MM_OK) {
        const mm_tensor_table *table = mm_weights_table(weights);
        char shape[192];
        for (int i = 0; i < table->n_tensors; i++) {
            mm_tensor_shape_text(&table->tensors[i], shape);
            printf("tensor %s %s\n", table->tensors[i].name, shape);
        }
        if (mm_weights_model(weights))
            printf("model %s\n", mm_weights_model(weights));
        if (mm_weights_provenance(weights))
            printf("provenance %s\n", mm_weights_provenance(weights));
        write_raw(out, values, (size_t)table->n_elems * sizeof *values, "wb");
    }
    free(values);
    mm_weights_close(&weights);
    return st;
}

static mm_status kind(const char *in)
{
    static const char *const kinds[] = {
        [MM_WEIGHTS_CHECKPOINT] = "checkpoint",
        [MM_WEIGHTS_HDF5] = "hdf5",
        [MM_WEIGHTS_SAFETENSORS] = "safetensors",
        [MM_WEIGHTS_TORCH_DICT] = "torch dict",
        [MM_WEIGHTS_TORCH_MODULE] = "torch module",
        [MM_WEIGHTS_TORCHSCRIPT] = "torchscript",
    };
    mm_weights *weights;
    MM_TRY(mm_weights_open(in, &weights));
    printf("%s\n", kinds[mm_weights_get_kind(weights)]);
    for (int i = 0; i < mm_weights_table(weights)->n_tensors; i++)
        printf("%s\n", mm_elem_name(mm_weights_type(weights, i)));
    mm_weights_close(&weights);
    return MM_OK;
}

static mm_status scattered(const char *in, const char *out)
{
    mm_weights *weights = NULL;
    float *values = NULL;
    mm_status st = mm_weights_open(in, &weights);
    if (st == MM_OK) {
        const mm_tensor_table *table = mm_weights_table(weights);
        values = malloc((size_t)table->n_elems * sizeof *values + 1);
        for (int i = table->n_tensors; st == MM_OK && i-- > 0;) {
            const mm_tensor *t = &table->tensors[i];
            int64_t lo = t->off_elems, hi = lo + t->n_elems;
            int64_t middle = lo + t->n_elems / 3;
            st = mm_weights_read(weights, middle, hi, values + middle);
            if (st == MM_OK)
                st = mm_weights_read(weights, lo, middle, values + lo);
        }
        if (st == MM_OK)
            st = mm_weights_verify(weights, NULL);
        if (st == MM_OK)
            write_raw(out, values, (size_t)table->n_elems * sizeof *values,
                      "wb");
    }
    free(values);
    mm_weights_close(&weights);
    return st;
}

static mm_status safetensors(const char *type_name, const char *in,
                             const char *out)
{
    mm_elem_type type = MM_ELEM_F64;
    mm_comm *comm = NULL;
    mm_weights *weights = NULL;
    mm_weights_writer *file = NULL;
    float *values = NULL;
    while (type < MM_ELEM_OTHER && strcmp(mm_elem_name(type), type_name) != 0)
        type++;
    mm_status st = read_all(in, &weights, &values);
    if (st == MM_OK)
        st = mm_comm_create(NULL, NULL, &comm);
    if (st == MM_OK)
        st = mm_safetensors_begin(comm, out, mm_weights_table(weights), type,
                                  model, provenance, &file);
    if (st == MM_OK) {
        st = mm_weights_writer_write(
            file, 0, mm_weights_table(weights)->n_elems, values);
        st = mm_weights_writer_commit(&file, st, NULL, NULL);
    }
    mm_comm_destroy(&comm);
    free(values);
    mm_weights_close(&weights);
    return st;
}

static mm_status open_dataset(const char *in, mm_dataset **dataset)
{
    struct stat info;
    if (stat(in, &info) == 0 && S_ISDIR(info.st_mode))
        return mm_dataset_open_idx(in, dataset);
    return mm_dataset_open_file(in, dataset);
}

static void print_half(const char *name, const mm_half *half, const char *out,
                       const char *mode)
{
    printf("%s %" PRId64 " %" PRId64 " %" PRId64 " %d\n", name, half->n_images,
           half->height, half->width, half->channels);
    printf("labels");
    for (int64_t i = 0; i < half->n_images; i++)
        printf(" %d", half->labels[i]);
    printf("\ndomains");
    for (int64_t i = 0; half->domains && i < half->n_images; i++)
        printf(" %d", half->domains[i]);
    printf("\n");
    size_t n_bytes =
        (size_t)(half->n_images * half->height * half->width * half->channels);
    write_raw(out, half->pixels, n_bytes, mode);
}

static mm_status dataset(const char *in, const char *out)
{
    mm_dataset *d = NULL;
    MM_TRY(open_dataset(in, &d));
    print_half("train", &d->train, out, "wb");
    print_half("test", &d->test, out, "ab");
    printf("classes %d domains %d\n", d->n_classes, d->n_domains);
    for (int i = 0; d->class_names && i < d->n_classes; i++)
        printf("class %s\n", d->class_names[i]);
    for (int i = 0; d->domain_names && i < d->n_domains; i++)
        printf("domain %s\n", d->domain_names[i]);
    mm_dataset_close(&d);
    return MM_OK;
}

static mm_status pack(const char *in, const char *out)
{
    mm_dataset *d = NULL;
    MM_TRY(open_dataset(in, &d));
    mm_status st = mm_dataset_write(out, d, provenance);
    mm_dataset_close(&d);
    return st;
}

static mm_status arrays(const char *out)
{
    static const float weight[6] = {1, 2, 3, 4, 5, 6.5f};
    static const int32_t labels[3] = {7, 8, 9};
    const mm_array list[] = {
        {"weight", MM_ARRAY_F32, 2, {2, 3}, weight},
        {"labels", MM_ARRAY_I32, 1, {3, 0}, labels},
        {"made", MM_ARRAY_TEXT, 0, {0, 0}, "by a test: \xc3\xa9"},
    };
    return mm_array_file_write(out, list, 3);
}

int main(int argc, char **argv)
{
    mm_status st = MM_OK;
    const char *verb = argc > 2 ? argv[1] : "";
    if (argc == 4 && strcmp(verb, "copy") == 0)
        st = copy(argv[2], argv[3]);
    else if (argc == 4 && strcmp(verb, "floats") == 0)
        st = floats(argv[2], argv[3]);
    else if (argc == 3 && strcmp(verb, "kind") == 0)
        st = kind(argv[2]);
    else if (argc == 4 && strcmp(verb, "scattered") == 0)
        st = scattered(argv[2], argv[3]);
    else if (argc == 5 && strcmp(verb, "safetensors") == 0)
        st = safetensors(argv[2], argv[3], argv[4]);
    else if (argc == 4 && strcmp(verb, "dataset") == 0)
        st = dataset(argv[2], argv[3]);
    else if (argc == 4 && strcmp(verb, "pack") == 0)
        st = pack(argv[2], argv[3]);
    else if (argc == 3 && strcmp(verb, "arrays") == 0)
        st = arrays(argv[2]);
    else
        st = mm_fail(MM_E_ARG, "unknown arguments");
    if (st != MM_OK)
        printf("%s\n", mm_fail_message());
    return (int)st;
}
