/* PNG files, decoded and resized: as they are, and with every chunk's checksum
 * put right, which no mutation would find. */

#include "tests/fuzz/fuzz_image.h"

#include <string.h>
#include <zlib.h>

enum { SIGNATURE = 8, FRAME = 12 /* length, name and checksum of a chunk */ };

static uint32_t read_32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
           (uint32_t)at[2] << 8 | at[3];
}

static void correct_checksums(uint8_t *data, size_t size)
{
    size_t at = SIGNATURE;
    while (at + FRAME <= size && read_32(data + at) <= size - at - FRAME) {
        uint32_t n_bytes = read_32(data + at) + 4;
        uint32_t sum = (uint32_t)crc32(0, data + at + 4, n_bytes);
        for (int i = 0; i < 4; i++)
            data[at + 4 + n_bytes + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 8 + (size_t)n_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    fuzz_image(copy, size);
    correct_checksums(copy, size);
    fuzz_image(copy, size);
    free(copy);
    return 0;
}
