#ifndef MAGMAX_TESTS_PARITY_GOLDEN_H
#define MAGMAX_TESTS_PARITY_GOLDEN_H

#include "io/weights/weights.h"
#include "tests/golden/golden_path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * What the tests against stored reference numbers share: reading those, and
 * comparing.
 */

static inline void must(mm_status st)
{
    if (st != MM_OK)
        fail_msg("%s", mm_fail_message());
}

/** One whole tensor of a file; free() it. n_elems may be NULL. */
static inline float *read_tensor(mm_weights *file, const char *name,
                                 int64_t *n_elems)
{
    const mm_tensor_table *table = mm_weights_table(file);
    int at = mm_tensor_table_find(table, name);
    if (at < 0)
        fail_msg("no tensor %s in %s", name, mm_weights_path(file));
    const mm_tensor *tensor = &table->tensors[at];
    float *values = malloc((size_t)tensor->n_elems * sizeof *values);
    must(mm_weights_read(file, tensor->off_elems,
                         tensor->off_elems + tensor->n_elems, values));
    if (n_elems)
        *n_elems = tensor->n_elems;
    return values;
}

/** The first bytes of a tensor that is not a weight. */
static inline void read_raw(const char *path, const char *name, void *out,
                            size_t n_bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint64_t header_bytes;
    assert_int_equal(fread(&header_bytes, sizeof header_bytes, 1, file), 1);
    char *text = malloc(header_bytes);
    assert_int_equal(fread(text, 1, header_bytes, file), header_bytes);
    json_t *header = json_loadb(text, header_bytes, 0, NULL);
    const json_t *offsets =
        json_object_get(json_object_get(header, name), "data_offsets");
    json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    fseek(file, (long)(8 + header_bytes) + (long)begin, SEEK_SET);
    assert_int_equal(fread(out, 1, n_bytes, file), n_bytes);
    json_decref(header);
    free(text);
    fclose(file);
}

/** Every difference is at most `bound` of the largest magnitude of `theirs`. */
static inline void assert_close(const char *name, const float *ours,
                                const float *theirs, int64_t n, double bound)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)theirs[i]));
        double error = fabs((double)ours[i] - (double)theirs[i]);
        if (!(error <= worst))
            worst = error;
    }
    if (!(worst <= bound * largest))
        fail_msg("%s: off by %.3g of its largest magnitude, allowed %.3g", name,
                 worst / largest, bound);
}

#endif
