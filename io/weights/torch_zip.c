/* Reads the zip archives of torch.save by libzip, and finds where in the file a
 * stored record's bytes are. */

#include "io/weights/torch_zip.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

enum { MAX_NAME = 512 };

/* libzip reads through this, so that we see where it reads. */
typedef struct input {
    int fd;
    zip_int64_t n_bytes, at;
    zip_int64_t last_read; /* where the last read began */
    zip_error_t error;
} input;

struct mm_torch_zip {
    input in;
    zip_t *archive;
    char *folder; /* with its slash */
};

static zip_int64_t read_input(input *in, void *data, zip_uint64_t n_bytes)
{
    size_t want = n_bytes < 1 << 30 ? (size_t)n_bytes : 1 << 30;
    ssize_t got;
    in->last_read = in->at;
    do
        got = pread(in->fd, data, want, in->at);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        zip_error_set(&in->error, ZIP_ER_READ, errno);
    else
        in->at += got;
    return got;
}

static zip_int64_t seek_input(input *in, void *data, zip_uint64_t n_bytes)
{
    zip_int64_t at = zip_source_seek_compute_offset((zip_uint64_t)in->at,
                                                    (zip_uint64_t)in->n_bytes,
                                                    data, n_bytes, &in->error);
    if (at < 0)
        return -1;
    in->at = at;
    return 0;
}

static zip_int64_t stat_input(const input *in, void *data)
{
    zip_stat_t *info = data;
    zip_stat_init(info);
    info->size = (zip_uint64_t)in->n_bytes;
    info->valid |= ZIP_STAT_SIZE;
    return sizeof *info;
}

static zip_int64_t serve(void *state, void *data, zip_uint64_t n_bytes,
                         zip_source_cmd_t command)
{
    input *in = state;
    switch (command) {
    case ZIP_SOURCE_OPEN:
        in->at = 0;
        return 0;
    case ZIP_SOURCE_READ:
        return read_input(in, data, n_bytes);
    case ZIP_SOURCE_SEEK:
        return seek_input(in, data, n_bytes);
    case ZIP_SOURCE_TELL:
        return in->at;
    case ZIP_SOURCE_STAT:
        return stat_input(in, data);
    case ZIP_SOURCE_ERROR:
        return zip_error_to_data(&in->error, data, n_bytes);
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE:
        return 0;
    case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(
            ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL,
            ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR, ZIP_SOURCE_CLOSE,
            ZIP_SOURCE_FREE, ZIP_SOURCE_SUPPORTS, -1);
    default:
        zip_error_set(&in->error, ZIP_ER_OPNOTSUPP, 0);
        return -1;
    }
}

static mm_status fail(const char *record, const char *what)
{
    return mm_fail(MM_E_FORMAT, "record %s %s", record, what);
}

static mm_status open_archive(mm_torch_zip *zip)
{
    zip_error_t error;
    zip_error_init(&error);
    zip_error_init(&zip->in.error);
    zip_source_t *source = zip_source_function_create(serve, &zip->in, &error);
    if (source)
        zip->archive = zip_open_from_source(source, ZIP_RDONLY, &error);
    mm_status st = MM_OK;
    if (!zip->archive) {
        zip_source_free(source);
        st = mm_fail(MM_E_FORMAT,
                     "not a complete zip file: %s (is it truncated?)",
                     zip_error_strerror(&error));
    }
    zip_error_fini(&error);
    return st;
}

static mm_status find_folder(mm_torch_zip *zip)
{
    const char *first = zip_get_name(zip->archive, 0, ZIP_FL_ENC_RAW);
    const char *slash = first ? strchr(first, '/') : NULL;
    if (!slash || slash - first >= MAX_NAME / 2)
        return mm_fail(MM_E_FORMAT, "a zip file, but not one of PyTorch: it "
                                    "has no folder with a data.pkl");
    zip->folder = strndup(first, (size_t)(slash - first) + 1);
    if (!zip->folder)
        return mm_fail(MM_E_MEMORY, "no memory for its records");
    return MM_OK;
}

mm_status mm_torch_zip_open(int fd, int64_t n_bytes, mm_torch_zip **zip)
{
    mm_torch_zip *z = calloc(1, sizeof *z);
    *zip = NULL;
    if (!z)
        return mm_fail(MM_E_MEMORY, "no memory to open it");
    z->in = (input){.fd = fd, .n_bytes = n_bytes};
    mm_status st = open_archive(z);
    if (st == MM_OK)
        st = find_folder(z);
    if (st != MM_OK)
        mm_torch_zip_close(&z);
    *zip = z;
    return st;
}

void mm_torch_zip_close(mm_torch_zip **zip)
{
    if (!*zip)
        return;
    if ((*zip)->archive)
        zip_discard((*zip)->archive);
    zip_error_fini(&(*zip)->in.error);
    free((*zip)->folder);
    free(*zip);
    *zip = NULL;
}

/* Index in the archive, or -1. */
static zip_int64_t find(const mm_torch_zip *zip, const char *record)
{
    char name[MAX_NAME];
    int length = snprintf(name, sizeof name, "%s%s", zip->folder, record);
    if (length >= (int)sizeof name)
        return -1;
    return zip_name_locate(zip->archive, name, ZIP_FL_ENC_RAW);
}

bool mm_torch_zip_has(const mm_torch_zip *zip, const char *record)
{
    return find(zip, record) >= 0;
}

/* Open a record; a size that its compressed bytes cannot give is an error:
 * Deflate shrinks at most 1032 times. */
static mm_status open_record(mm_torch_zip *zip, const char *record,
                             zip_stat_t *info, zip_file_t **stream)
{
    zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_CRC |
                          ZIP_STAT_COMP_METHOD;
    zip_int64_t index = find(zip, record);
    if (index < 0)
        return fail(record, "is missing: the file is not torch.save's or "
                            "torch.jit.save's, or saving it broke off");
    if (zip_stat_index(zip->archive, (zip_uint64_t)index, 0, info) != 0 ||
        (info->valid & needed) != needed)
        return fail(record, "has no size or checksum");
    if (info->size > INT64_MAX || info->size / 1032 > info->comp_size ||
        info->comp_size > (zip_uint64_t)zip->in.n_bytes)
        return fail(record, "claims more bytes than the file can hold");
    *stream = zip_fopen_index(zip->archive, (zip_uint64_t)index, 0);
    if (!*stream)
        return fail(record, zip_strerror(zip->archive));
    return MM_OK;
}

mm_status mm_torch_zip_read(mm_torch_zip *zip, const char *record,
                            int64_t max_bytes, char **data, int64_t *n_bytes)
{
    zip_stat_t info;
    zip_file_t *stream = NULL;
    char rest;
    mm_status st = open_record(zip, record, &info, &stream);
    *data = NULL;
    if (st == MM_OK && info.size > (zip_uint64_t)max_bytes)
        st = fail(record, "is larger than any model needs");
    if (st == MM_OK && !(*data = malloc((size_t)info.size + 1)))
        st = mm_fail(MM_E_MEMORY, "no memory for record %s", record);
    /* The checksum is compared when the end is read. */
    if (st == MM_OK &&
        (zip_fread(stream, *data, info.size) != (zip_int64_t)info.size ||
         zip_fread(stream, &rest, 1) != 0)) {
        zip_error_t *error = zip_file_get_error(stream);
        int code = zip_error_code_zip(error);
        st = fail(record, code == ZIP_ER_OK    ? "is truncated"
                          : code == ZIP_ER_CRC ? "has another checksum: the "
                                                 "file is damaged, or was "
                                                 "saved without checksums; "
                                                 "save it again"
                                               : zip_error_strerror(error));
    }
    if (stream)
        zip_fclose(stream);
    if (st != MM_OK) {
        free(*data);
        *data = NULL;
        return st;
    }
    *n_bytes = (int64_t)info.size;
    return MM_OK;
}

mm_status mm_torch_zip_locate(mm_torch_zip *zip, const char *record,
                              mm_torch_record *place)
{
    zip_stat_t info;
    zip_file_t *stream;
    char first;
    MM_TRY(open_record(zip, record, &info, &stream));
    mm_status st = MM_OK;
    *place = (mm_torch_record){.n_bytes = (int64_t)info.size, .crc = info.crc};
    if (info.comp_method != ZIP_CM_STORE || info.comp_size != info.size ||
        (info.valid & ZIP_STAT_ENCRYPTION_METHOD &&
         info.encryption_method != ZIP_EM_NONE)) {
        st =
            fail(record, "is compressed or encrypted; save the file again with "
                         "torch.save, which stores tensors as they are");
    } else if (info.size > 0) {
        /* libzip has checked the local header; where it reads the first byte
         * from is where the data begins. */
        if (zip_fread(stream, &first, 1) != 1)
            st = fail(record, "is truncated");
        place->off_bytes = zip->in.last_read;
        if (st == MM_OK && place->n_bytes > zip->in.n_bytes - place->off_bytes)
            st = fail(record, "is truncated");
    }
    zip_fclose(stream);
    return st;
}
