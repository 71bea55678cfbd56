#ifndef MAGMAX_TESTS_FUZZ_FUZZ_WEIGHTS_H
#define MAGMAX_TESTS_FUZZ_FUZZ_WEIGHTS_H

#include "io/weights/weights.h"
#include "tests/fuzz/fuzz_file.h"

/** Open a file of weights, read it all in pieces of odd sizes, and verify. */
static inline void fuzz_weights_read(const char *path)
{
    static float values[1 << 16];
    const int64_t piece = 977, most = 1 << 16;
    mm_weights *weights = NULL;
    if (mm_weights_open(path, &weights) != MM_OK)
        return;
    int64_t n = mm_weights_table(weights)->n_elems;
    for (int64_t lo = 0; lo < n && lo < most; lo += piece) {
        int64_t hi = lo + piece < n ? lo + piece : n;
        if (mm_weights_read(weights, lo, hi, values) != MM_OK)
            break;
    }
    if (mm_weights_verify(weights, NULL) == MM_OK && n > 0)
        (void)mm_weights_type(weights, 0);
    mm_weights_close(&weights);
}

#endif
