/* Reads single images of an open data set, stored as pixels, as encoded bytes
 * in one file or as files of their own, and names them in messages. */

#include "io/dataset/sample.h"

#include "io/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Largest file that can be an image of the formats that are read. */
static const int64_t max_file_bytes = INT32_MAX;

struct mm_sample_reader {
    const mm_half *half;
    mm_image_decoder *decoder; /* NULL for raw pixels */
    uint8_t *bytes;            /* the file read last */
    int64_t capacity;
};

mm_status mm_sample_reader_create(const mm_half *half,
                                  mm_sample_reader **reader)
{
    mm_sample_reader *r = calloc(1, sizeof *r);
    *reader = r;
    if (!r)
        return mm_fail(MM_E_MEMORY, "no memory to read images");
    r->half = half;
    mm_status st = MM_OK;
    if (half->storage != MM_STORED_PIXELS)
        st = mm_image_decoder_create(&r->decoder);
    if (st != MM_OK)
        mm_sample_reader_destroy(reader);
    return st;
}

void mm_sample_reader_destroy(mm_sample_reader **reader)
{
    if (!*reader)
        return;
    mm_image_decoder_destroy(&(*reader)->decoder);
    free((*reader)->bytes);
    free(*reader);
    *reader = NULL;
}

void mm_sample_name(const mm_half *half, int64_t i,
                    char name[MM_SAMPLE_NAME_BYTES])
{
    const char *what = half->what ? half->what : "image";
    const char *path =
        half->path_starts ? half->paths + half->path_starts[i] : NULL;
    if (half->storage == MM_STORED_FILES)
        snprintf(name, MM_SAMPLE_NAME_BYTES, "%s/%s", half->folder, path);
    else if (path)
        snprintf(name, MM_SAMPLE_NAME_BYTES, "%s %lld (%s)", what, (long long)i,
                 path);
    else
        snprintf(name, MM_SAMPLE_NAME_BYTES, "%s %lld", what, (long long)i);
}

/* Grown by half more than is needed: a run settles after a few images. */
static mm_status make_room(mm_sample_reader *r, int64_t n_bytes,
                           const char *path)
{
    if (n_bytes <= r->capacity)
        return MM_OK;
    int64_t capacity = n_bytes + n_bytes / 2;
    free(r->bytes);
    r->bytes = malloc((size_t)capacity);
    r->capacity = r->bytes ? capacity : 0;
    return r->bytes ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for %s", path);
}

static mm_status read_open_file(mm_sample_reader *r, int fd, const char *path,
                                int64_t *n_bytes)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return mm_fail_errno("cannot read %s", path);
    if (!S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "%s is not a regular file", path);
    if (info.st_size == 0)
        return mm_fail(MM_E_FORMAT, "%s is empty", path);
    if (info.st_size > max_file_bytes)
        return mm_fail(MM_E_FORMAT, "%s is too large for an image", path);
    *n_bytes = info.st_size;
    MM_TRY(make_room(r, *n_bytes, path));
    return mm_file_read_at(fd, path, 0, r->bytes, *n_bytes);
}

static mm_status read_file(mm_sample_reader *r, const char *path,
                           int64_t *n_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", path);
    mm_status st = read_open_file(r, fd, path, n_bytes);
    close(fd);
    return st;
}

enum { PATH_BYTES = 4200 };

static void file_path(const mm_half *half, int64_t i, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", half->folder,
             half->paths + half->path_starts[i]);
}

mm_status mm_sample_n_bytes(const mm_half *half, int64_t i, int64_t *n_bytes)
{
    char path[PATH_BYTES];
    struct stat info;
    MM_ASSERT(half->storage != MM_STORED_PIXELS);
    if (half->storage == MM_STORED_BYTES) {
        *n_bytes = half->offsets[i + 1] - half->offsets[i];
        return MM_OK;
    }
    file_path(half, i, path);
    if (stat(path, &info) != 0)
        return mm_fail_errno("cannot open %s", path);
    *n_bytes = info.st_size;
    return MM_OK;
}

mm_status mm_sample_read_bytes(mm_sample_reader *r, int64_t i,
                               const uint8_t **bytes, int64_t *n_bytes)
{
    const mm_half *half = r->half;
    MM_ASSERT(half->storage != MM_STORED_PIXELS);
    if (half->storage == MM_STORED_BYTES) {
        *bytes = half->bytes + half->offsets[i];
        *n_bytes = half->offsets[i + 1] - half->offsets[i];
        return MM_OK;
    }
    char path[PATH_BYTES];
    file_path(half, i, path);
    MM_TRY(read_file(r, path, n_bytes));
    *bytes = r->bytes;
    return MM_OK;
}

static mm_image raw_image(const mm_half *half, int64_t i)
{
    int64_t n_bytes = half->height * half->width * half->channels;
    return (mm_image){
        .pixels = half->pixels + i * n_bytes,
        .height = half->height,
        .width = half->width,
        .channels = half->channels,
        .mode = half->channels == 3 ? MM_IMAGE_RGB : MM_IMAGE_GREY,
    };
}

mm_status mm_sample_read(mm_sample_reader *r, int64_t i, mm_image *image)
{
    if (r->half->storage == MM_STORED_PIXELS) {
        *image = raw_image(r->half, i);
        return MM_OK;
    }
    const uint8_t *bytes;
    int64_t n_bytes;
    char name[MM_SAMPLE_NAME_BYTES];
    MM_TRY(mm_sample_read_bytes(r, i, &bytes, &n_bytes));
    mm_sample_name(r->half, i, name);
    return mm_image_decode(r->decoder, bytes, n_bytes, name, image);
}
