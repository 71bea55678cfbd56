/* Checkpoints written and read by 1 to 4 ranks. */
#include "comm/partition.h"
#include "io/weights/weights.h"
#include "io/weights/weights_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

typedef struct scene {
    mm_comm *comm;
    int rank, n_ranks;
    mm_tensor_table table;
    float *values;
    char folder[64], path[128], tmp_path[160];
} scene;

static int build_scene(void **state)
{
    static const int64_t shapes[][2] = {{64, 48},    {1, 1}, {0, 7},
                                        {300, 1000}, {3, 1}, {777, 13}};
    scene *s = calloc(1, sizeof *s);
    *state = s;
    if (!s || mm_comm_create(NULL, NULL, &s->comm) != MM_OK)
        return 1;
    s->rank = mm_comm_rank(s->comm);
    s->n_ranks = mm_comm_n_ranks(s->comm);
    for (int i = 0; i < 6; i++) {
        char name[32];
        snprintf(name, sizeof name, "visual.tensor_%d", i);
        if (mm_tensor_table_add(&s->table, name, 2, shapes[i]) != MM_OK)
            return 1;
    }
    s->values = malloc((size_t)s->table.n_elems * sizeof *s->values);
    for (int64_t i = 0; i < s->table.n_elems; i++)
        s->values[i] = (float)((i * 7919) % 10007) / 64 - 70;
    snprintf(s->folder, sizeof s->folder, "/tmp/magmax-mpi-XXXXXX");
    if (s->rank == 0 && !mkdtemp(s->folder))
        return 1;
    if (mm_comm_broadcast(s->comm, s->folder, sizeof s->folder, 0) != MM_OK)
        return 1;
    snprintf(s->path, sizeof s->path, "%s/task.h5", s->folder);
    snprintf(s->tmp_path, sizeof s->tmp_path, "%s.tmp", s->path);
    return 0;
}

static int clear_scene(void **state)
{
    scene *s = *state;
    char command[200];
    int failed = 0;
    mm_comm_barrier(s->comm);
    snprintf(command, sizeof command, "rm -rf '%s'", s->folder);
    if (s->rank == 0)
        failed = system(command);
    free(s->values);
    mm_tensor_table_clear(&s->table);
    mm_comm_destroy(&s->comm);
    free(s);
    return failed;
}

static mm_status save(scene *s)
{
    return mm_checkpoint_save(s->comm, s->path, &s->table, s->values, "{}",
                              "{\"seed\": 5}");
}

static void expect_no_file(scene *s)
{
    mm_comm_barrier(s->comm);
    assert_int_not_equal(access(s->path, F_OK), 0);
    assert_int_not_equal(access(s->tmp_path, F_OK), 0);
    mm_comm_barrier(s->comm);
}

static void remove_file(scene *s)
{
    mm_comm_barrier(s->comm);
    if (s->rank == 0)
        unlink(s->path);
    mm_comm_barrier(s->comm);
}

/* Read this rank's share in pieces of odd sizes, and verify together. */
static mm_status read_share(scene *s, int64_t piece, mm_range share, float *out)
{
    mm_weights *weights = NULL;
    mm_status st = mm_weights_open(s->path, &weights);
    if (st == MM_OK)
        st = mm_weights_bind(weights, &s->table);
    for (int64_t lo = share.lo; st == MM_OK && lo < share.hi; lo += piece) {
        int64_t hi = lo + piece < share.hi ? lo + piece : share.hi;
        st = mm_weights_read(weights, lo, hi, out + (lo - share.lo));
    }
    st = mm_comm_agree(s->comm, st);
    if (st == MM_OK)
        st = mm_weights_verify(weights, s->comm);
    mm_weights_close(&weights);
    return st;
}

static void what_is_written_is_read_bit_for_bit(void **state)
{
    scene *s = *state;
    mm_range share = mm_partition(s->table.n_elems, s->rank, s->n_ranks);
    size_t n = (size_t)(share.hi - share.lo);
    float *out = malloc(n * sizeof *out + 1);
    assert_int_equal(save(s), MM_OK);
    const int64_t pieces[] = {INT64_MAX / 2, 100000, 4999};
    for (int i = 0; i < 3; i++) {
        memset(out, 0, n * sizeof *out);
        assert_int_equal(read_share(s, pieces[i], share, out), MM_OK);
        assert_memory_equal(out, s->values + share.lo, n * sizeof *out);
    }
    free(out);
    /* And by each rank alone. */
    float *all = malloc((size_t)s->table.n_elems * sizeof *all);
    assert_int_equal(mm_weights_load(s->path, &s->table, all), MM_OK);
    assert_memory_equal(all, s->values, (size_t)s->table.n_elems * sizeof *all);
    free(all);
    remove_file(s);
}

static uLong file_crc(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    unsigned char bytes[4096];
    uLong crc = 0;
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, file)) > 0;)
        crc = crc32(crc, bytes, (uInt)n);
    fclose(file);
    return crc;
}

/* One rank alone and all together write the same bytes. */
static void the_file_is_the_same_for_any_number_of_ranks(void **state)
{
    scene *s = *state;
    mm_weights_writer *checkpoint;
    assert_int_equal(save(s), MM_OK);
    uLong together = file_crc(s->path);
    for (int writer = 0; writer < s->n_ranks; writer++) {
        remove_file(s);
        assert_int_equal(
            mm_checkpoint_begin(s->comm, s->path, &s->table, &checkpoint),
            MM_OK);
        mm_status st = mm_weights_writer_write(
            checkpoint, 0, s->rank == writer ? s->table.n_elems : 0, s->values);
        assert_int_equal(
            mm_weights_writer_commit(&checkpoint, st, "{}", "{\"seed\": 5}"),
            MM_OK);
        assert_int_equal(file_crc(s->path), together);
    }
    remove_file(s);
}

static void uneven_ranges_in_odd_pieces_make_the_same_file(void **state)
{
    scene *s = *state;
    mm_weights_writer *checkpoint;
    int64_t n = s->table.n_elems;
    /* The last rank writes nearly all; with three or more, one writes none. */
    int64_t lo = s->rank == 0 ? 0 : 999;
    int64_t hi = s->rank == s->n_ranks - 1 ? n : 999;
    assert_int_equal(
        mm_checkpoint_begin(s->comm, s->path, &s->table, &checkpoint), MM_OK);
    mm_status st = MM_OK;
    for (int64_t at = lo; st == MM_OK && at < hi; at += 70001) {
        int64_t end = at + 70001 < hi ? at + 70001 : hi;
        st = mm_weights_writer_write(checkpoint, at, end, s->values + at);
    }
    assert_int_equal(
        mm_weights_writer_commit(&checkpoint, st, "{}", "{\"seed\": 5}"),
        MM_OK);
    assert_null(checkpoint);
    float *all = malloc((size_t)n * sizeof *all);
    assert_int_equal(mm_weights_load(s->path, &s->table, all), MM_OK);
    assert_memory_equal(all, s->values, (size_t)n * sizeof *all);
    free(all);
    remove_file(s);
}

static void a_gap_between_the_ranks_is_an_error(void **state)
{
    scene *s = *state;
    mm_weights_writer *checkpoint;
    mm_range share = mm_partition(s->table.n_elems, s->rank, s->n_ranks);
    if (s->rank == s->n_ranks - 1)
        share.lo++;
    assert_int_equal(
        mm_checkpoint_begin(s->comm, s->path, &s->table, &checkpoint), MM_OK);
    mm_status st = mm_weights_writer_write(checkpoint, share.lo, share.hi,
                                           s->values + share.lo);
    assert_int_equal(mm_weights_writer_commit(&checkpoint, st, NULL, NULL),
                     MM_E_ARG);
    expect_no_file(s);
}

static void a_failure_of_one_rank_is_returned_by_all(void **state)
{
    scene *s = *state;
    for (int bad = 0; bad < s->n_ranks; bad++) {
        mm_weights_writer *checkpoint;
        mm_range share = mm_partition(s->table.n_elems, s->rank, s->n_ranks);
        assert_int_equal(
            mm_checkpoint_begin(s->comm, s->path, &s->table, &checkpoint),
            MM_OK);
        mm_status st = mm_weights_writer_write(checkpoint, share.lo, share.hi,
                                               s->values + share.lo);
        if (s->rank == bad)
            st = mm_fail(MM_E_DEVICE, "the device is gone");
        assert_int_equal(mm_weights_writer_commit(&checkpoint, st, NULL, NULL),
                         MM_E_DEVICE);
        assert_non_null(strstr(mm_fail_message(), "the device is gone"));
        expect_no_file(s);
    }
}

static void nan_is_never_written(void **state)
{
    scene *s = *state;
    for (int bad = 0; bad < s->n_ranks; bad++) {
        mm_range share = mm_partition(s->table.n_elems, bad, s->n_ranks);
        float kept = s->values[share.hi - 1];
        s->values[share.hi - 1] = NAN;
        assert_int_equal(save(s), MM_E_VALUE);
        s->values[share.hi - 1] = kept;
        assert_non_null(strstr(mm_fail_message(), "visual.tensor_"));
        expect_no_file(s);
    }
}

static void an_unwritable_folder_is_one_error_on_all(void **state)
{
    scene *s = *state;
    mm_weights_writer *checkpoint;
    assert_int_equal(
        mm_checkpoint_begin(s->comm, "/none/task.h5", &s->table, &checkpoint),
        MM_E_IO);
    assert_null(checkpoint);
    assert_non_null(strstr(mm_fail_message(), "/none/task.h5"));
}

static void a_failure_keeps_the_file_that_was_there(void **state)
{
    scene *s = *state;
    float *all = malloc((size_t)s->table.n_elems * sizeof *all);
    assert_int_equal(save(s), MM_OK);
    float kept = s->values[5];
    s->values[5] = INFINITY;
    assert_int_equal(save(s), MM_E_VALUE);
    s->values[5] = kept;
    assert_int_equal(mm_weights_load(s->path, &s->table, all), MM_OK);
    assert_memory_equal(all, s->values, (size_t)s->table.n_elems * sizeof *all);
    free(all);
    remove_file(s);
}

/* The 300,000 elements of one tensor, shared by all ranks, all but one byte. */
static void a_changed_byte_is_found_by_ranks_together(void **state)
{
    scene *s = *state;
    mm_range share = mm_partition(s->table.n_elems, s->rank, s->n_ranks);
    float *out = malloc((size_t)(share.hi - share.lo) * sizeof *out + 1);
    for (int place = 0; place < 5; place++) {
        assert_int_equal(save(s), MM_OK);
        if (s->rank == 0) {
            FILE *file = fopen(s->path, "r+b");
            assert_non_null(file);
            long at = 100000 + place * 240000;
            fseek(file, at, SEEK_SET);
            int byte = fgetc(file);
            fseek(file, at, SEEK_SET);
            fputc(byte ^ 1, file);
            fclose(file);
        }
        mm_comm_barrier(s->comm);
        assert_int_equal(read_share(s, 100000, share, out), MM_E_FORMAT);
        assert_non_null(strstr(mm_fail_message(), "visual.tensor_3"));
    }
    free(out);
    remove_file(s);
}

static void verifying_needs_every_element_once(void **state)
{
    scene *s = *state;
    mm_weights *weights;
    float *all = malloc((size_t)s->table.n_elems * sizeof *all);
    int64_t n = s->table.n_elems;
    assert_int_equal(save(s), MM_OK);
    assert_int_equal(mm_weights_open(s->path, &weights), MM_OK);
    assert_int_equal(mm_weights_verify(weights, s->comm), MM_E_ARG);
    assert_int_equal(mm_weights_read(weights, 10, n, all), MM_OK);
    assert_int_equal(mm_weights_verify(weights, NULL), MM_E_ARG);
    assert_non_null(strstr(mm_fail_message(), "visual.tensor_0"));
    assert_int_equal(mm_weights_read(weights, 0, n, all), MM_OK);
    assert_int_equal(mm_weights_read(weights, n - 1, n, all), MM_OK);
    assert_int_equal(mm_weights_verify(weights, NULL), MM_E_ARG);
    assert_non_null(strstr(mm_fail_message(), "visual.tensor_5"));
    /* Afterwards another pass can start. */
    assert_int_equal(mm_weights_read(weights, 0, n, all), MM_OK);
    assert_int_equal(mm_weights_verify(weights, NULL), MM_OK);
    mm_weights_close(&weights);
    free(all);
    remove_file(s);
}

/* As a converter reads: parts of tensors, some first, some last. */
static void pieces_may_come_in_any_order(void **state)
{
    scene *s = *state;
    mm_weights *weights;
    int64_t n = s->table.n_elems;
    int64_t bounds[] = {0, 3000, 3072, 5000, 200000, 303073, n};
    static const int order[] = {4, 0, 5, 2, 1, 3};
    float *all = malloc((size_t)n * sizeof *all);
    assert_int_equal(save(s), MM_OK);
    assert_int_equal(mm_weights_open(s->path, &weights), MM_OK);
    for (int i = 0; i < 6; i++) {
        int64_t lo = bounds[order[i]], hi = bounds[order[i] + 1];
        assert_int_equal(mm_weights_read(weights, lo, hi, all + lo), MM_OK);
    }
    assert_memory_equal(all, s->values, (size_t)n * sizeof *all);
    assert_int_equal(mm_weights_verify(weights, NULL), MM_OK);
    /* Ranks share the pieces; each reads its own backwards. */
    for (int i = 6; i-- > 0;)
        if (i % s->n_ranks == s->rank)
            assert_int_equal(
                mm_weights_read(weights, bounds[i], bounds[i + 1], all), MM_OK);
    assert_int_equal(mm_weights_verify(weights, s->comm), MM_OK);
    /* Without the others, tensors that this rank has not read are not verified.
     */
    const mm_tensor *t = &s->table.tensors[4];
    assert_int_equal(
        mm_weights_read(weights, t->off_elems, t->off_elems + t->n_elems, all),
        MM_OK);
    assert_int_equal(mm_weights_verify(weights, NULL), MM_OK);
    mm_weights_close(&weights);
    free(all);
    remove_file(s);
}

static mm_status save_safetensors(scene *s, mm_elem_type type, int64_t piece)
{
    mm_weights_writer *checkpoint;
    mm_range share = mm_partition(s->table.n_elems, s->rank, s->n_ranks);
    mm_status st =
        mm_safetensors_begin(s->comm, s->path, &s->table, type, "{\"a\": 1}",
                             "{\"b\": \"\\n\"}", &checkpoint);
    if (st != MM_OK)
        return st;
    for (int64_t lo = share.lo; st == MM_OK && lo < share.hi; lo += piece) {
        int64_t hi = lo + piece < share.hi ? lo + piece : share.hi;
        st = mm_weights_writer_write(checkpoint, lo, hi, s->values + lo);
    }
    return mm_weights_writer_commit(&checkpoint, st, NULL, NULL);
}

/* What is written as `type` and read again. */
static float through(mm_elem_type type, float value)
{
    uint16_t half;
    if (type == MM_ELEM_F32)
        return value;
    mm_elem_from_f32(type, &value, &half, 1);
    mm_elem_to_f32(type, &half, &value, 1);
    return value;
}

static void safetensors_written_by_ranks_are_read(void **state)
{
    scene *s = *state;
    static const mm_elem_type types[] = {MM_ELEM_F32, MM_ELEM_F16,
                                         MM_ELEM_BF16};
    int64_t n = s->table.n_elems;
    float *all = malloc((size_t)n * sizeof *all);
    for (int i = 0; i < 3; i++) {
        mm_weights *weights;
        assert_int_equal(save_safetensors(s, types[i], 70001), MM_OK);
        uLong crc = file_crc(s->path);
        mm_comm_barrier(s->comm);
        assert_int_equal(save_safetensors(s, types[i], n), MM_OK);
        assert_int_equal(file_crc(s->path), crc);
        assert_int_equal(mm_weights_open(s->path, &weights), MM_OK);
        assert_int_equal(mm_weights_get_kind(weights), MM_WEIGHTS_SAFETENSORS);
        assert_int_equal(mm_weights_type(weights, 3), types[i]);
        assert_string_equal(mm_weights_model(weights), "{\"a\": 1}");
        assert_string_equal(mm_weights_provenance(weights), "{\"b\": \"\\n\"}");
        assert_int_equal(mm_weights_table(weights)->n_tensors, 6);
        assert_int_equal(mm_weights_read(weights, 0, n, all), MM_OK);
        for (int64_t j = 0; j < n; j++)
            assert_true(all[j] == through(types[i], s->values[j]));
        mm_weights_close(&weights);
        mm_comm_barrier(s->comm);
    }
    free(all);
    remove_file(s);
}

static void safetensors_that_cannot_be_leave_no_file(void **state)
{
    scene *s = *state;
    mm_weights_writer *checkpoint;
    int64_t last = s->table.n_elems - 1;
    float kept = s->values[last];
    s->values[last] = 65520;
    assert_int_equal(save_safetensors(s, MM_ELEM_F16, last), MM_E_VALUE);
    assert_non_null(strstr(mm_fail_message(),
                           "tensor visual.tensor_5 is 65520, "
                           "too large for F16"));
    expect_no_file(s);
    s->values[last] = NAN;
    assert_int_equal(save_safetensors(s, MM_ELEM_F32, last), MM_E_VALUE);
    expect_no_file(s);
    s->values[last] = kept;
    assert_int_equal(save_safetensors(s, MM_ELEM_F64, last), MM_E_ARG);
    expect_no_file(s);
    /* A gap between the pieces. */
    assert_int_equal(mm_safetensors_begin(s->comm, s->path, &s->table,
                                          MM_ELEM_F32, NULL, NULL, &checkpoint),
                     MM_OK);
    assert_int_equal(mm_weights_writer_commit(&checkpoint, MM_OK, NULL, NULL),
                     MM_E_ARG);
    expect_no_file(s);
}

/* src/base/utf8.h */
static void safetensors_of_any_bytes_are_utf8(void **state)
{
    scene *s = *state;
    mm_tensor_table odd = {0};
    mm_weights_writer *writer;
    mm_weights *weights;
    const mm_range own = mm_partition(2, mm_comm_rank(s->comm), s->n_ranks);
    mm_tensor_table_add(&odd, "caf\xe9", 1, (const int64_t[]){1});
    mm_tensor_table_add(&odd, "caf\\xE9", 1, (const int64_t[]){1});
    assert_int_equal(mm_safetensors_begin(s->comm, s->path, &odd, MM_ELEM_F32,
                                          "{\xff}", "{\"\\\\xE9\": 1}",
                                          &writer),
                     MM_OK);
    mm_status st = mm_weights_writer_write(writer, own.lo, own.hi, s->values);
    assert_int_equal(mm_weights_writer_commit(&writer, st, NULL, NULL), MM_OK);
    assert_int_equal(mm_weights_open(s->path, &weights), MM_OK);
    const mm_tensor_table *table = mm_weights_table(weights);
    assert_string_equal(table->tensors[0].name, "caf\\xE9");
    assert_string_equal(table->tensors[1].name, "caf\\x5CxE9");
    assert_string_equal(mm_weights_model(weights), "{\\xFF}");
    assert_string_equal(mm_weights_provenance(weights), "{\"\\\\xE9\": 1}");
    mm_weights_close(&weights);
    mm_tensor_table_clear(&odd);
    mm_comm_barrier(s->comm);
    remove_file(s);
}

static void another_architecture_is_refused_by_name(void **state)
{
    scene *s = *state;
    mm_tensor_table other = {0};
    float value;
    assert_int_equal(save(s), MM_OK);
    mm_tensor_table_add(&other, "visual.tensor_1", 2, (const int64_t[]){1, 2});
    assert_int_equal(mm_weights_load(s->path, &other, &value), MM_E_FORMAT);
    assert_non_null(
        strstr(mm_fail_message(), "visual.tensor_1 has shape [1, 1]"));
    mm_tensor_table_clear(&other);
    remove_file(s);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(what_is_written_is_read_bit_for_bit),
        cmocka_unit_test(the_file_is_the_same_for_any_number_of_ranks),
        cmocka_unit_test(uneven_ranges_in_odd_pieces_make_the_same_file),
        cmocka_unit_test(a_gap_between_the_ranks_is_an_error),
        cmocka_unit_test(a_failure_of_one_rank_is_returned_by_all),
        cmocka_unit_test(nan_is_never_written),
        cmocka_unit_test(an_unwritable_folder_is_one_error_on_all),
        cmocka_unit_test(a_failure_keeps_the_file_that_was_there),
        cmocka_unit_test(a_changed_byte_is_found_by_ranks_together),
        cmocka_unit_test(verifying_needs_every_element_once),
        cmocka_unit_test(pieces_may_come_in_any_order),
        cmocka_unit_test(safetensors_written_by_ranks_are_read),
        cmocka_unit_test(safetensors_that_cannot_be_leave_no_file),
        cmocka_unit_test(safetensors_of_any_bytes_are_utf8),
        cmocka_unit_test(another_architecture_is_refused_by_name),
    };
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
