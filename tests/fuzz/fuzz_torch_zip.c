/* Archives of PyTorch. An input that starts as zip files do is one; any other
 * becomes the data.pkl of an archive with a few storages, so that changed
 * pickles are not lost to the archive's checksums. */

#include "io/weights/checksum.h"
#include "tests/fuzz/fuzz_weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_STORAGES = 6, STORAGE_BYTES = 192, NAME_BYTES = 10 };

typedef struct bytes {
    uint8_t *data;
    size_t n;
} bytes;

static void put(bytes *b, uint64_t number, size_t n_bytes)
{
    memcpy(b->data + b->n, &number, n_bytes);
    b->n += n_bytes;
}

static void put_bytes(bytes *b, const void *data, size_t n_bytes)
{
    if (n_bytes)
        memcpy(b->data + b->n, data, n_bytes);
    b->n += n_bytes;
}

/* What a record's local header and its entry in the directory have in common.
 */
static void put_common(bytes *b, const void *data, size_t n_bytes)
{
    put(b, 20, 2);         /* version needed */
    put(b, 0, 4);          /* flags, method: stored */
    put(b, 0x00210000, 4); /* 1980-01-01 */
    put(b, mm_crc32(data, (int64_t)n_bytes), 4);
    put(b, n_bytes, 4);
    put(b, n_bytes, 4);
    put(b, NAME_BYTES, 2);
    put(b, 0, 2); /* extra */
}

static void put_record(bytes *archive, bytes *directory, const char *name,
                       const void *data, size_t n_bytes)
{
    put(directory, 0x02014b50, 4);
    put(directory, 20, 2);
    put_common(directory, data, n_bytes);
    put(directory, 0, 8); /* comment, disk, attributes */
    put(directory, 0, 2);
    put(directory, archive->n, 4);
    put_bytes(directory, name, NAME_BYTES);

    put(archive, 0x04034b50, 4);
    put_common(archive, data, n_bytes);
    put_bytes(archive, name, NAME_BYTES);
    put_bytes(archive, data, n_bytes);
}

static bytes make_archive(const uint8_t *data, size_t size)
{
    uint8_t storage[STORAGE_BYTES];
    bytes archive = {malloc(size + 4096), 0}, directory = {malloc(4096), 0};
    if (!archive.data || !directory.data)
        abort();
    for (int i = 0; i < STORAGE_BYTES; i++)
        storage[i] = (uint8_t)(i * 37 % 101);
    put_record(&archive, &directory, "a/data.pkl", data, size);
    for (int i = 0; i < N_STORAGES; i++) {
        char name[NAME_BYTES + 1];
        /* Padded, so that all names have one length. */
        snprintf(name, sizeof name, "a/data/%03d", i);
        put_record(&archive, &directory, name, storage, STORAGE_BYTES);
    }
    size_t start = archive.n;
    put_bytes(&archive, directory.data, directory.n);
    put(&archive, 0x06054b50, 4);
    put(&archive, 0, 4);
    put(&archive, N_STORAGES + 1, 2);
    put(&archive, N_STORAGES + 1, 2);
    put(&archive, directory.n, 4);
    put(&archive, start, 4);
    put(&archive, 0, 2);
    free(directory.data);
    return archive;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bytes archive = {NULL, 0};
    bool is_archive = size >= 2 && memcmp(data, "PK", 2) == 0;
    if (!is_archive) {
        archive = make_archive(data, size);
        data = archive.data;
        size = archive.n;
    }
    fuzz_file file = fuzz_file_open(data, size);
    fuzz_weights_read(file.path);
    fuzz_file_close(&file);
    free(archive.data);
    return 0;
}
