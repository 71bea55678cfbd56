#ifndef MAGMAX_SRC_BASE_FNV_H
#define MAGMAX_SRC_BASE_FNV_H

#include <stdint.h>

/* FNV-1a, 64 bits (Fowler, Noll, Vo): a hash for tables and for comparing data;
 * not for security. */

#define MM_FNV_BEGIN UINT64_C(0xcbf29ce484222325)

/** The hash of bytes that follow those of `hash`; start from MM_FNV_BEGIN. */
static inline uint64_t mm_fnv(uint64_t hash, const void *data, int64_t n_bytes)
{
    const unsigned char *bytes = (const unsigned char *)data;
    for (int64_t i = 0; i < n_bytes; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#endif
