#ifndef MAGMAX_IO_WEIGHTS_TORCH_ZIP_H
#define MAGMAX_IO_WEIGHTS_TORCH_ZIP_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/**
 * The zip archives of torch.save and torch.jit.save: records in one folder,
 * whose name is that of the archive's first record.
 */
typedef struct mm_torch_zip mm_torch_zip;

/** Where the bytes of a record lie in the file. */
typedef struct mm_torch_record {
    int64_t off_bytes, n_bytes;
    uint32_t crc;
} mm_torch_record;

/**
 * Open an archive, also beyond 4 GiB.
 *
 * Memory   Gives *zip, freed by mm_torch_zip_close. Keeps fd.
 * Ranks    Local.
 * Errors   MM_E_FORMAT; MM_E_MEMORY. Here and below without the file's
 *          name.
 */
mm_status mm_torch_zip_open(int fd, int64_t n_bytes, mm_torch_zip **zip);
void mm_torch_zip_close(mm_torch_zip **zip);

bool mm_torch_zip_has(const mm_torch_zip *zip, const char *record);

/**
 * Read a whole record, decompressed, its checksum compared.
 *
 * Memory   Gives *data (free).
 * Errors   MM_E_FORMAT: it is not there, longer than max_bytes, damaged.
 */
mm_status mm_torch_zip_read(mm_torch_zip *zip, const char *record,
                            int64_t max_bytes, char **data, int64_t *n_bytes);

/**
 * Find a record that is stored as it is.
 *
 * Errors   MM_E_FORMAT: it is not there, compressed, or reaches beyond the
 * file.
 */
mm_status mm_torch_zip_locate(mm_torch_zip *zip, const char *record,
                              mm_torch_record *place);

#endif
