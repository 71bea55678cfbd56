/* Reads data sets from NumPy archives (.npz): arrays of images, labels and
 * domains, with every size checked before memory is allocated. */

#include "io/dataset/dataset_reader.h"
#include "io/python/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zip.h>

/* One array of the archive, open for reading. */
typedef struct array {
    const char *path, *name;
    zip_file_t *stream;
    mm_npy npy;
} array;

static mm_status fail(const array *a, const char *what)
{
    return mm_fail(MM_E_FORMAT, "%s: array %s %s", a->path, a->name, what);
}

static void close_array(array *a)
{
    if (a->stream)
        zip_fclose(a->stream);
    a->stream = NULL;
}

static mm_status read_bytes(array *a, void *data, int64_t n_bytes)
{
    char *to = data;
    while (n_bytes > 0) {
        int64_t want = n_bytes < 1 << 30 ? n_bytes : 1 << 30;
        zip_int64_t got = zip_fread(a->stream, to, (zip_uint64_t)want);
        if (got < 0)
            return fail(a, zip_file_strerror(a->stream));
        if (got == 0)
            return fail(a, "is truncated");
        to += got;
        n_bytes -= got;
    }
    return MM_OK;
}

/* libzip compares the archive's checksum when it reads past the end. */
static mm_status expect_end(array *a)
{
    char rest;
    zip_int64_t got = zip_fread(a->stream, &rest, 1);
    if (got < 0)
        return fail(a, zip_file_strerror(a->stream));
    return got == 0 ? MM_OK : fail(a, "is longer than it says");
}

/* Sizes that the compressed bytes, or those of the file, cannot give are
 * errors, and nothing is allocated for them: Deflate shrinks at most 1032
 * times. */
static mm_status check_size(const array *a, const zip_stat_t *info)
{
    struct stat file;
    zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                          ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if ((info->valid & needed) != needed || info->size > INT64_MAX)
        return fail(a, "has no size");
    if (info->encryption_method != ZIP_EM_NONE ||
        (info->comp_method != ZIP_CM_STORE &&
         info->comp_method != ZIP_CM_DEFLATE))
        return fail(a, "is neither stored nor deflated");
    if (info->size / 1032 > info->comp_size)
        return fail(a, "claims more bytes than its compressed size can give");
    if (stat(a->path, &file) != 0)
        return mm_fail_errno("cannot open %s", a->path);
    if (info->comp_size > (zip_uint64_t)file.st_size)
        return fail(a, "claims more bytes than the file has");
    return MM_OK;
}

static mm_status read_header(array *a, int64_t size)
{
    uint8_t prefix[MM_NPY_MAX_PREFIX] = {0};
    char text[MM_NPY_MAX_HEADER + 1];
    int prefix_bytes, text_bytes;
    MM_TRY(read_bytes(a, prefix, 10));
    if (prefix[6] > 1)
        MM_TRY(read_bytes(a, prefix + 10, 2));
    mm_status st = mm_npy_parse_prefix(prefix, &prefix_bytes, &text_bytes);
    if (st == MM_OK) {
        MM_TRY(read_bytes(a, text, text_bytes));
        text[text_bytes] = '\0';
        st = mm_npy_parse(text, &a->npy);
    }
    if (st != MM_OK)
        return mm_fail_within(st, "%s: array %s", a->path, a->name);
    if (a->npy.n_bytes != size - prefix_bytes - text_bytes)
        return fail(a, "has another size than its shape says");
    return MM_OK;
}

/* Find and open an array; `*there` says whether the archive has it. */
static mm_status open_array(zip_t *archive, const char *path, const char *name,
                            array *a, bool *there)
{
    char member[64];
    zip_stat_t info;
    snprintf(member, sizeof member, "%s.npy", name);
    *a = (array){.path = path, .name = name};
    zip_int64_t index = zip_name_locate(archive, member, 0);
    *there = index >= 0;
    if (!*there)
        return MM_OK;
    if (zip_stat_index(archive, (zip_uint64_t)index, 0, &info) != 0)
        return fail(a, zip_strerror(archive));
    MM_TRY(check_size(a, &info));
    a->stream = zip_fopen_index(archive, (zip_uint64_t)index, 0);
    if (!a->stream)
        return fail(a, zip_strerror(archive));
    return read_header(a, (int64_t)info.size);
}

static mm_status read_images(zip_t *archive, const char *path, const char *name,
                             mm_half *half, uint8_t **pixels, bool *there)
{
    array a;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(archive, path, name, &a, there));
    if (!*there)
        goto done;
    if (a.npy.kind != 'u' || a.npy.elem_bytes != 1)
        MM_TRY_GOTO(st, done, fail(&a, "must be uint8"));
    MM_TRY_GOTO(st, done,
                mm_half_set_shape(half, path, name, a.npy.n_dims, a.npy.shape));
    *pixels = malloc((size_t)a.npy.n_bytes + 1);
    if (!*pixels)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name));
    MM_TRY_GOTO(st, done, read_bytes(&a, *pixels, a.npy.n_bytes));
    st = expect_end(&a);
done:
    close_array(&a);
    return st;
}

static mm_status narrow(const array *a, const uint8_t *bytes, int32_t **labels)
{
    int64_t n = a->npy.n_elems;
    int64_t *wide = malloc((size_t)n * sizeof *wide + 1);
    if (!wide)
        return mm_fail(MM_E_MEMORY, "%s: no memory for %s", a->path, a->name);
    for (int64_t i = 0; i < n; i++)
        wide[i] = mm_npy_element(&a->npy, bytes, i);
    mm_status st = mm_labels_narrow(a->path, a->name, wide, n, labels);
    free(wide);
    return st;
}

static mm_status read_labels(zip_t *archive, const char *path, const char *name,
                             int64_t n_images, int32_t **labels, bool *there)
{
    array a;
    uint8_t *bytes = NULL;
    mm_status st;
    MM_TRY_GOTO(st, done, open_array(archive, path, name, &a, there));
    if (!*there)
        goto done;
    bool flat = a.npy.n_dims == 1 || (a.npy.n_dims == 2 && a.npy.shape[1] == 1);
    if (!flat)
        MM_TRY_GOTO(st, done,
                    fail(&a, "must have shape [N] or [N, 1]: one "
                             "number for each image"));
    if (a.npy.shape[0] != n_images)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s: array %s has %lld entries for "
                            "%lld images",
                            path, name, (long long)a.npy.shape[0],
                            (long long)n_images));
    bytes = malloc((size_t)a.npy.n_bytes + 1);
    if (!bytes)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_MEMORY, "%s: no memory for %s", path, name));
    MM_TRY_GOTO(st, done, read_bytes(&a, bytes, a.npy.n_bytes));
    MM_TRY_GOTO(st, done, expect_end(&a));
    st = narrow(&a, bytes, labels);
done:
    free(bytes);
    close_array(&a);
    return st;
}

/* Images, labels and domains that are named "train_..." or "test_...". */
static mm_status read_half(zip_t *archive, const char *path,
                           const char *const names[3], mm_half *half,
                           uint8_t **pixels, bool *there)
{
    bool has_labels, has_domains;
    MM_TRY(read_images(archive, path, names[0], half, pixels, there));
    MM_TRY(read_labels(archive, path, names[1], half->n_images, &half->labels,
                       &has_labels));
    if (*there != has_labels)
        return mm_fail(MM_E_FORMAT, "%s does not contain the array %s", path,
                       has_labels ? names[0] : names[1]);
    return read_labels(archive, path, names[2], half->n_images, &half->domains,
                       &has_domains);
}

mm_status mm_dataset_read_npz(const char *path, mm_dataset *dataset)
{
    static const char *const train_names[] = {"train_images", "train_labels",
                                              "train_domains"};
    static const char *const test_names[] = {"test_images", "test_labels",
                                             "test_domains"};
    uint8_t *train = NULL, *test = NULL;
    bool has_train, has_test;
    int code;
    mm_status st;
    zip_t *archive = zip_open(path, ZIP_RDONLY, &code);
    if (!archive) {
        zip_error_t error;
        zip_error_init_with_code(&error, code);
        st = mm_fail(MM_E_FORMAT, "%s: %s", path, zip_error_strerror(&error));
        zip_error_fini(&error);
        return st;
    }
    MM_TRY_GOTO(st, done,
                read_half(archive, path, train_names, &dataset->train, &train,
                          &has_train));
    if (!has_train)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT,
                            "%s does not contain the array train_images",
                            path));
    MM_TRY_GOTO(
        st, done,
        read_half(archive, path, test_names, &dataset->test, &test, &has_test));
    st = mm_dataset_keep_pixels(dataset, train, test);
    train = test = NULL;
done:
    free(train);
    free(test);
    zip_discard(archive);
    return st;
}
