/* Tensors of an open weights file are found by name; what is missing,
 * unexpected, of another shape or truncated is refused. */

#include "io/hdf5/array_file.h"
#include "io/weights/weights.h"
#include "tests/golden/golden_path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/magmax-weights-XXXXXX";
static const char golden[] = "tiny/seq/task_000.safetensors";

static int name_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 || close(fd) != 0;
}

/* A safetensors file from its header and n floats 0, 1, 2, ... */
static void write_file(const char *header, int n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    uint64_t n_bytes = strlen(header);
    fwrite(&n_bytes, 8, 1, file);
    fputs(header, file);
    for (int i = 0; i < n; i++) {
        float value = (float)i;
        fwrite(&value, 4, 1, file);
    }
    assert_int_equal(fclose(file), 0);
}

static const char three_tensors[] =
    "{\"visual.a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
    "\"visual.b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[16,28]},"
    "\"text\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[28,32]}}";

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void binding_reorders_by_name(void **state)
{
    (void)state;
    const int64_t a[] = {2, 2}, b[] = {3};
    mm_tensor_table wanted = {0};
    mm_weights *weights;
    float values[7];
    write_file(three_tensors, 8);
    assert_int_equal(mm_tensor_table_add(&wanted, "visual.b", 1, b), MM_OK);
    assert_int_equal(mm_tensor_table_add(&wanted, "visual.a", 2, a), MM_OK);
    assert_int_equal(mm_weights_open(path, &weights), MM_OK);
    assert_string_equal(mm_weights_path(weights), path);
    assert_null(mm_weights_model(weights));
    assert_null(mm_weights_provenance(weights));
    assert_int_equal(mm_weights_table(weights)->n_tensors, 3);
    assert_int_equal(mm_weights_bind(weights, &wanted), MM_OK);
    assert_int_equal(mm_weights_read(weights, 0, 7, values), MM_OK);
    const float expected[] = {4, 5, 6, 0, 1, 2, 3};
    assert_memory_equal(values, expected, sizeof expected);
    /* Any piece, at the same coordinates. */
    for (int lo = 0; lo <= 7; lo++)
        for (int hi = lo; hi <= 7; hi++) {
            assert_int_equal(mm_weights_read(weights, lo, hi, values), MM_OK);
            assert_memory_equal(values, expected + lo,
                                (size_t)(hi - lo) * sizeof *values);
        }
    assert_int_equal(mm_weights_read(weights, 3, 8, values), MM_E_ARG);
    assert_int_equal(mm_weights_verify(weights, NULL), MM_OK);
    mm_weights_close(&weights);
    assert_null(weights);
    assert_int_equal(mm_weights_load(path, &wanted, values), MM_OK);
    assert_memory_equal(values, expected, sizeof expected);
    mm_tensor_table_clear(&wanted);
}

static void expect_refusal(const mm_tensor_table *wanted, const char *words)
{
    mm_weights *weights;
    write_file(three_tensors, 8);
    assert_int_equal(mm_weights_open(path, &weights), MM_OK);
    assert_int_equal(mm_weights_bind(weights, wanted), MM_E_FORMAT);
    if (!strstr(mm_fail_message(), words))
        fail_msg("%s", mm_fail_message());
    assert_non_null(strstr(mm_fail_message(), path));
    mm_weights_close(&weights);
}

static void missing_unexpected_and_misshapen_tensors_are_named(void **state)
{
    (void)state;
    const int64_t a[] = {2, 2}, b[] = {3}, flat[] = {4};
    mm_tensor_table wanted = {0};
    mm_tensor_table_add(&wanted, "text", 1, (const int64_t[]){1});
    mm_weights *weights;
    write_file(three_tensors, 8);
    assert_int_equal(mm_weights_open(path, &weights), MM_OK);
    /* Without any visual tensor wanted, none is unexpected. */
    assert_int_equal(mm_weights_bind(weights, &wanted), MM_OK);
    mm_weights_close(&weights);

    mm_tensor_table_add(&wanted, "visual.a", 2, a);
    expect_refusal(&wanted, "visual.b");
    mm_tensor_table_add(&wanted, "visual.b", 1, b);
    mm_tensor_table_add(&wanted, "visual.c", 1, b);
    expect_refusal(&wanted, "does not contain the tensor visual.c");
    mm_tensor_table_clear(&wanted);
    mm_tensor_table_add(&wanted, "visual.a", 1, flat);
    expect_refusal(&wanted, "visual.a has shape [2, 2], but the model needs "
                            "[4]");
    mm_tensor_table_clear(&wanted);
}

static void a_failed_bind_keeps_the_one_before(void **state)
{
    (void)state;
    mm_tensor_table wanted = {0};
    mm_weights *weights;
    float values[8];
    write_file(three_tensors, 8);
    mm_tensor_table_add(&wanted, "none", 1, (const int64_t[]){1});
    assert_int_equal(mm_weights_open(path, &weights), MM_OK);
    assert_int_equal(mm_weights_bind(weights, &wanted), MM_E_FORMAT);
    assert_int_equal(mm_weights_read(weights, 0, 8, values), MM_OK);
    assert_true(values[7] == 7);
    mm_weights_close(&weights);
    mm_tensor_table_clear(&wanted);
}

static void tensors_of_no_elements_are_passed_over(void **state)
{
    (void)state;
    mm_weights *weights;
    float values[2];
    write_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}"
               ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"
               ",\"c\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":"
               "[4,4]},\"d\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":"
               "[4,8]}}",
               2);
    assert_int_equal(mm_weights_open(path, &weights), MM_OK);
    assert_int_equal(mm_weights_table(weights)->n_tensors, 4);
    assert_int_equal(mm_weights_read(weights, 0, 2, values), MM_OK);
    assert_true(values[0] == 0 && values[1] == 1);
    assert_int_equal(mm_weights_read(weights, 1, 2, values), MM_OK);
    assert_true(values[0] == 1);
    mm_weights_close(&weights);
}

static void a_file_that_shrinks_while_open_is_truncated(void **state)
{
    (void)state;
    mm_weights *weights;
    float values[8];
    write_file(three_tensors, 8);
    assert_int_equal(mm_weights_open(path, &weights), MM_OK);
    assert_int_equal(truncate(path, 8 + (off_t)strlen(three_tensors) + 20), 0);
    assert_int_equal(mm_weights_read(weights, 0, 5, values), MM_OK);
    assert_int_equal(mm_weights_read(weights, 0, 8, values), MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), "truncated"));
    mm_weights_close(&weights);
}

static void a_head_file_needs_no_manifest(void **state)
{
    (void)state;
    const float weight[] = {1, 2, 3, 4, 5, 6};
    const int64_t shape[] = {3, 2};
    const mm_array array = {"weight", MM_ARRAY_F32, 2, {3, 2}, weight};
    mm_tensor_table wanted = {0};
    float values[6];
    assert_int_equal(mm_array_file_write(path, &array, 1), MM_OK);
    assert_int_equal(mm_tensor_table_add(&wanted, "weight", 2, shape), MM_OK);
    assert_int_equal(mm_weights_load(path, &wanted, values), MM_OK);
    assert_memory_equal(values, weight, sizeof weight);
    mm_tensor_table_clear(&wanted);
}

static void a_golden_file_opens(void **state)
{
    (void)state;
    mm_weights *weights;
    assert_int_equal(mm_weights_open(golden_path(golden), &weights), MM_OK);
    const mm_tensor_table *table = mm_weights_table(weights);
    int i = mm_tensor_table_find(table, "visual.conv1.weight");
    assert_true(i >= 0);
    assert_int_equal(table->tensors[i].n_elems, 64 * 3 * 8 * 8);
    float *values = malloc((size_t)table->n_elems * sizeof *values);
    assert_int_equal(mm_weights_read(weights, 0, table->n_elems, values),
                     MM_OK);
    free(values);
    mm_weights_close(&weights);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_teardown(name, remove_file)
    const struct CMUnitTest cases[] = {
        CASE(binding_reorders_by_name),
        CASE(missing_unexpected_and_misshapen_tensors_are_named),
        CASE(a_failed_bind_keeps_the_one_before),
        CASE(tensors_of_no_elements_are_passed_over),
        CASE(a_file_that_shrinks_while_open_is_truncated),
        CASE(a_head_file_needs_no_manifest),
        CASE(a_golden_file_opens),
    };
    return cmocka_run_group_tests(cases, name_file, NULL);
}
