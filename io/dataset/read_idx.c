/* Reads MNIST's format: IDX files of images and labels, plain or compressed by
 * gzip. */

#include "io/dataset/dataset_reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zlib.h>

/* One IDX file, plain or compressed: zlib reads both. */
typedef struct idx {
    char *path;
    gzFile stream;
    int64_t file_bytes; /* on the disk */
    int n_dims;
    int64_t shape[3];
} idx;

static void close_idx(idx *x)
{
    if (x->stream)
        gzclose(x->stream);
    free(x->path);
    *x = (idx){0};
}

static mm_status fail(const idx *x, const char *what)
{
    return mm_fail(MM_E_FORMAT, "%s %s", x->path, what);
}

static mm_status read_bytes(idx *x, void *data, int64_t n_bytes)
{
    char *to = data;
    while (n_bytes > 0) {
        unsigned want = n_bytes < 1 << 30 ? (unsigned)n_bytes : 1u << 30;
        int got = gzread(x->stream, to, want);
        if (got <= 0) {
            int code;
            const char *text = gzerror(x->stream, &code);
            if (code == Z_ERRNO)
                return mm_fail_errno("cannot read %s", x->path);
            return fail(x, code < 0 && code != Z_BUF_ERROR ? text
                                                           : "is truncated");
        }
        to += got;
        n_bytes -= got;
    }
    return MM_OK;
}

static mm_status expect_end(idx *x)
{
    char rest;
    int got = gzread(x->stream, &rest, 1);
    if (got < 0)
        return fail(x, "is damaged: its checksum is wrong");
    return got == 0 ? MM_OK : fail(x, "is longer than it says");
}

/* NAME or NAME.gz */
static mm_status open_stream(const char *folder, const char *name, idx *x)
{
    struct stat info;
    *x = (idx){0};
    for (int compressed = 0; compressed < 2; compressed++) {
        free(x->path);
        if (asprintf(&x->path, "%s/%s%s", folder, name,
                     compressed ? ".gz" : "") < 0) {
            x->path = NULL;
            return mm_fail(MM_E_MEMORY, "no memory for a file name");
        }
        if (stat(x->path, &info) == 0)
            break;
        if (compressed || errno != ENOENT) {
            mm_status st =
                mm_fail_errno("cannot open %s/%s or its .gz", folder, name);
            return st;
        }
    }
    if (!S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "%s is not a regular file", x->path);
    x->file_bytes = info.st_size;
    x->stream = gzopen(x->path, "rbe");
    if (!x->stream)
        return mm_fail_errno("cannot open %s", x->path);
    gzbuffer(x->stream, 1 << 17);
    return MM_OK;
}

/* Big-endian: 0, 0, 8 for bytes, the number of dimensions, then each. */
static mm_status read_header(idx *x, int n_dims)
{
    uint8_t magic[4], size[4];
    int64_t n_bytes = 1;
    MM_TRY(read_bytes(x, magic, 4));
    if (magic[0] || magic[1] || magic[2] != 8 || magic[3] != n_dims)
        return mm_fail(MM_E_FORMAT,
                       "%s is not an IDX file of bytes with %d dimensions",
                       x->path, n_dims);
    x->n_dims = n_dims;
    for (int i = 0; i < n_dims; i++) {
        MM_TRY(read_bytes(x, size, 4));
        x->shape[i] =
            (int64_t)size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3];
        if (__builtin_mul_overflow(n_bytes, x->shape[i], &n_bytes))
            return fail(x, "has an impossible shape");
    }
    /* Deflate shrinks at most 1032 times. */
    if (n_bytes / 1032 > x->file_bytes)
        return fail(x, "is truncated");
    return MM_OK;
}

static mm_status read_images(const char *folder, const char *name,
                             mm_half *half, uint8_t **pixels)
{
    idx x;
    mm_status st;
    MM_TRY_GOTO(st, done, open_stream(folder, name, &x));
    MM_TRY_GOTO(st, done, read_header(&x, 3));
    MM_TRY_GOTO(st, done, mm_half_set_shape(half, x.path, "it", 3, x.shape));
    int64_t n_bytes = mm_half_n_bytes(half);
    *pixels = malloc((size_t)n_bytes + 1);
    if (!*pixels)
        MM_TRY_GOTO(st, done, mm_fail(MM_E_MEMORY, "no memory for %s", x.path));
    MM_TRY_GOTO(st, done, read_bytes(&x, *pixels, n_bytes));
    st = expect_end(&x);
done:
    close_idx(&x);
    return st;
}

static mm_status read_labels(const char *folder, const char *name,
                             mm_half *half)
{
    idx x;
    uint8_t *bytes = NULL;
    int64_t n = half->n_images;
    mm_status st;
    MM_TRY_GOTO(st, done, open_stream(folder, name, &x));
    MM_TRY_GOTO(st, done, read_header(&x, 1));
    if (x.shape[0] != n)
        MM_TRY_GOTO(st, done,
                    mm_fail(MM_E_FORMAT, "%s has %lld labels for %lld images",
                            x.path, (long long)x.shape[0], (long long)n));
    bytes = malloc((size_t)n + 1);
    half->labels = malloc((size_t)n * sizeof *half->labels + 1);
    if (!bytes || !half->labels)
        MM_TRY_GOTO(st, done, mm_fail(MM_E_MEMORY, "no memory for %s", x.path));
    MM_TRY_GOTO(st, done, read_bytes(&x, bytes, n));
    MM_TRY_GOTO(st, done, expect_end(&x));
    for (int64_t i = 0; i < n; i++)
        half->labels[i] = bytes[i];
done:
    free(bytes);
    close_idx(&x);
    return st;
}

mm_status mm_dataset_read_idx(const char *folder, mm_dataset *dataset)
{
    uint8_t *train = NULL, *test = NULL;
    mm_status st;
    MM_TRY_GOTO(st, done,
                read_images(folder, "train-images-idx3-ubyte", &dataset->train,
                            &train));
    MM_TRY_GOTO(
        st, done,
        read_labels(folder, "train-labels-idx1-ubyte", &dataset->train));
    MM_TRY_GOTO(
        st, done,
        read_images(folder, "t10k-images-idx3-ubyte", &dataset->test, &test));
    MM_TRY_GOTO(st, done,
                read_labels(folder, "t10k-labels-idx1-ubyte", &dataset->test));
    st = mm_dataset_keep_pixels(dataset, train, test);
    train = test = NULL;
done:
    free(train);
    free(test);
    return st;
}
