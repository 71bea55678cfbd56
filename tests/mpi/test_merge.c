/* The sharded engine over real files: golden parity, plain loops, failures of
 * one rank. On MAGMAX_TEST_DEVICE, the CPU without it; ranks share a GPU.
 * ctest: ranks=1,2,3,4,5 cuda seeds=fp32 */
#include "src/merge/merge.h"

#include "comm/comm.h"
#include "io/file.h"
#include "io/weights/weights.h"
#include "io/weights/weights_writer.h"
#include "src/base/rng.h"
#include "tests/golden/golden_path.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST_TASKS = 4 };

static mm_comm *comm;
static mm_device *device;
static char folder[64];

/** A path in the test's folder, in one of four buffers. */
static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/** Whether it holds on every rank, so that all ranks fail together. */
static bool everywhere(bool holds)
{
    int64_t n = holds;
    assert_int_equal(mm_comm_sum_int64(comm, &n, 1), MM_OK);
    return n == mm_comm_n_ranks(comm);
}

#define assert_everywhere(condition) assert_true(everywhere(condition))

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/magmax-test-XXXXXX");
    if (mm_comm_rank(comm) == 0 && !mkdtemp(folder))
        folder[0] = '\0';
    if (mm_comm_broadcast(comm, folder, sizeof folder, 0) != MM_OK)
        return -1;
    return folder[0] ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    bool removed = mm_comm_rank(comm) != 0 || system(command) == 0;
    return everywhere(removed) ? 0 : -1;
}

/* ---- golden files ------------------------------------------------------- */

static const char *golden_inputs[3];

static mm_merge_request golden_request(const mm_merge_method *method)
{
    golden_inputs[0] = golden_path("tiny/seq/task_000.safetensors");
    golden_inputs[1] = golden_path("tiny/seq/task_001.safetensors");
    golden_inputs[2] = golden_path("tiny/seq/task_002.safetensors");
    mm_merge_request request = {.pretrained =
                                    golden_path("tiny/weights.safetensors"),
                                .inputs = golden_inputs,
                                .n_inputs = 3,
                                .output = in_folder("merged.h5"),
                                .method = method,
                                .coef = method->default_coef,
                                .seed = 5,
                                .device = device};
    return request;
}

/** A file's tensors in the order of `table`, or NULL. */
static float *load(const char *path, const mm_tensor_table *table)
{
    float *values = calloc((size_t)table->n_elems, sizeof *values);
    if (values && mm_weights_load(path, table, values) != MM_OK) {
        free(values);
        values = NULL;
    }
    return values;
}

/** The pre-trained weights, the tasks', a merge of them. */
typedef struct golden {
    mm_weights *file; /* names the table */
    int64_t n_elems;
    float *base, *tuned[3], *merged, *expected;
} golden;

static bool golden_load(golden *g, const char *merged, const char *expected)
{
    *g = (golden){0};
    if (mm_weights_open(golden_path("tiny/merge/average.safetensors"),
                        &g->file) != MM_OK)
        return false;
    const mm_tensor_table *table = mm_weights_table(g->file);
    g->n_elems = table->n_elems;
    g->base = load(golden_path("tiny/weights.safetensors"), table);
    for (int t = 0; t < 3; t++)
        g->tuned[t] = load(golden_inputs[t], table);
    g->merged = load(merged, table);
    g->expected = expected ? load(expected, table) : NULL;
    return g->base && g->tuned[0] && g->tuned[1] && g->tuned[2] && g->merged &&
           (g->expected || !expected);
}

static void golden_free(golden *g)
{
    free(g->base);
    for (int t = 0; t < 3; t++)
        free(g->tuned[t]);
    free(g->merged);
    free(g->expected);
    mm_weights_close(&g->file);
}

/** "[0.1, 0.2, 0.3]" behind a key of a JSON text. */
static bool golden_shares(double shares[3])
{
    char *text = NULL;
    if (mm_file_read_text(golden_path("tiny/runs.json"), 1 << 20, &text) !=
        MM_OK)
        return false;
    json_t *root = json_loads(text, 0, NULL);
    json_t *array =
        json_object_get(root, "magmax_share_of_weights_won_by_task");
    bool found = json_array_size(array) == 3;
    for (size_t t = 0; t < 3; t++)
        shares[t] = json_number_value(json_array_get(array, t));
    json_decref(root);
    free(text);
    return found;
}

static void magmax_equals_the_golden_merge_bit_for_bit(void **state)
{
    (void)state;
    mm_merge_request request = golden_request(&mm_merge_magmax);
    int64_t n_won[3];
    mm_merge_result result = {.n_won = n_won};
    assert_int_equal(mm_merge(comm, NULL, &request, &result), MM_OK);

    golden g;
    double shares[3];
    bool loaded =
        golden_load(&g, request.output,
                    golden_path("tiny/merge/magmax_0.5.safetensors")) &&
        golden_shares(shares);
    assert_everywhere(loaded);
    bool same = memcmp(g.merged, g.expected, (size_t)g.n_elems * 4) == 0 &&
                result.n_elems == g.n_elems;
    for (int t = 0; t < 3; t++)
        same = same && fabs((double)n_won[t] / (double)result.n_elems -
                            shares[t]) < 1e-12;
    golden_free(&g);
    assert_everywhere(same);
}

/* Rounding, u = 2^-24: the golden numbers and ours each round the sum once
 * (u |out|); the T differences, T - 1 sums and the quotient each lose at most u
 * of what they make, at most the sum of |d_t|, over T. */
static bool average_within_rounding(const golden *g)
{
    const double u = 0x1p-24;
    for (int64_t i = 0; i < g->n_elems; i++) {
        double sum = 0;
        for (int t = 0; t < 3; t++)
            sum += fabs((double)g->tuned[t][i] - (double)g->base[i]);
        double bound =
            2 * u * fabs((double)g->expected[i]) + 2 * (3 + 1) * u * sum / 3;
        if (fabs((double)g->merged[i] - (double)g->expected[i]) > bound)
            return false;
    }
    return true;
}

static void average_equals_the_golden_merge_to_rounding(void **state)
{
    (void)state;
    mm_merge_request request = golden_request(&mm_merge_average);
    int64_t n_won[3];
    mm_merge_result result = {.n_won = n_won};
    assert_int_equal(mm_merge(comm, NULL, &request, &result), MM_OK);

    golden g;
    assert_everywhere(golden_load(
        &g, request.output, golden_path("tiny/merge/average.safetensors")));
    bool close = average_within_rounding(&g);
    golden_free(&g);
    assert_everywhere(close);
}

static void task_arithmetic_adds_the_scaled_sum(void **state)
{
    (void)state;
    mm_merge_request request = golden_request(&mm_merge_task_arithmetic);
    request.coef = 0.3;
    int64_t n_won[3];
    mm_merge_result result = {.n_won = n_won};
    assert_int_equal(mm_merge(comm, NULL, &request, &result), MM_OK);

    golden g;
    assert_everywhere(golden_load(&g, request.output, NULL));
    bool same = true;
    for (int64_t i = 0; i < g.n_elems; i++) {
        float sum = 0;
        for (int t = 0; t < 3; t++)
            sum += g.tuned[t][i] - g.base[i];
        float scaled = 0.3f * sum;
        same = same && g.merged[i] == g.base[i] + scaled;
    }
    golden_free(&g);
    assert_everywhere(same);
}

/** Every weight is that of the task drawn for it, and the counts say so. */
static bool random_as_drawn(const golden *g, const mm_merge_request *request,
                            const mm_merge_result *result)
{
    mm_rng_key key = mm_rng_key_of(request->seed, MM_RNG_MERGE);
    int64_t n_drawn[3] = {0};
    bool same = true;
    for (int64_t i = 0; i < g->n_elems; i++) {
        uint32_t t = mm_rng_below(key, (uint64_t)i, 3);
        n_drawn[t]++;
        float change = g->tuned[t][i] - g->base[i];
        same = same && g->merged[i] == g->base[i] + change;
    }
    for (int t = 0; t < 3; t++) {
        double share = (double)n_drawn[t] / (double)g->n_elems;
        same = same && n_drawn[t] == result->n_won[t] &&
               fabs(share - 1.0 / 3) < 0.01;
    }
    return same;
}

static void random_takes_each_weight_from_the_task_drawn(void **state)
{
    (void)state;
    uint64_t seeds[] = {5, 6, 5};
    int64_t n_won[3][3];
    for (int i = 0; i < 3; i++) {
        mm_merge_request request = golden_request(&mm_merge_random);
        request.seed = seeds[i];
        mm_merge_result result = {.n_won = n_won[i]};
        assert_int_equal(mm_merge(comm, NULL, &request, &result), MM_OK);
        golden g;
        assert_everywhere(golden_load(&g, request.output, NULL));
        bool same = random_as_drawn(&g, &request, &result);
        golden_free(&g);
        assert_everywhere(same);
    }
    assert_memory_equal(n_won[0], n_won[2], sizeof n_won[0]);
    assert_memory_not_equal(n_won[0], n_won[1], sizeof n_won[0]);
}

/* ---- small files -------------------------------------------------------- */

typedef struct shape {
    const char *name;
    int64_t n_elems;
} shape;

/** Write a checkpoint of vectors; element i of the file holds
 * scale * (i % 7 - 3). */
static mm_status save(const char *name, const shape *shapes, int n_tensors,
                      float scale, const char *model)
{
    mm_tensor_table table = {0};
    mm_status st = MM_OK;
    for (int i = 0; i < n_tensors && st == MM_OK; i++)
        st = mm_tensor_table_add(&table, shapes[i].name, 1, &shapes[i].n_elems);
    float *values = calloc((size_t)table.n_elems + 1, sizeof *values);
    for (int64_t i = 0; i < table.n_elems; i++)
        values[i] = scale * (float)(i % 7 - 3);
    if (st == MM_OK)
        st = mm_checkpoint_save(comm, in_folder(name), &table, values, model,
                                NULL);
    free(values);
    mm_tensor_table_clear(&table);
    return st;
}

static void fewer_elements_than_ranks_merge(void **state)
{
    (void)state;
    const shape small[] = {{"visual.proj", 2}};
    assert_int_equal(save("zero.h5", small, 1, 0, NULL), MM_OK);
    assert_int_equal(save("one.h5", small, 1, 1, NULL), MM_OK);
    char zero[128], one[128];
    strcpy(zero, in_folder("zero.h5"));
    strcpy(one, in_folder("one.h5"));
    const char *inputs[] = {one};
    mm_merge_request request = {.pretrained = zero,
                                .inputs = inputs,
                                .n_inputs = 1,
                                .output = in_folder("small.h5"),
                                .method = &mm_merge_magmax,
                                .coef = 0.5,
                                .device = device};
    int64_t n_won[1];
    mm_merge_result result = {.n_won = n_won};
    assert_int_equal(mm_merge(comm, NULL, &request, &result), MM_OK);
    assert_int_equal(n_won[0], 2);

    mm_weights *merged = NULL;
    float values[2] = {0};
    mm_status st = mm_weights_open(request.output, &merged);
    if (st == MM_OK)
        st = mm_weights_read(merged, 0, 2, values);
    mm_weights_close(&merged);
    assert_everywhere(st == MM_OK && values[0] == -1.5f && values[1] == -1);
}

/** The pre-trained file's text tower and order stay, its configuration is
 * copied, and larger tensors span several blocks. */
static void other_tensors_and_the_configuration_are_copied(void **state)
{
    (void)state;
    enum { LARGE = 1200001 };
    const shape whole[] = {{"logit_scale", 1},
                           {"visual.proj", LARGE},
                           {"text_projection", 70001},
                           {"visual.ln_post.bias", 3}};
    const shape visual[] = {whole[1], whole[3]};
    assert_int_equal(save("zero.h5", whole, 4, 1, "{\"embed_dim\": 8}"), MM_OK);
    assert_int_equal(save("a.h5", visual, 2, 3, NULL), MM_OK);
    assert_int_equal(save("b.h5", visual, 2, -2, NULL), MM_OK);
    char zero[128], a[128], b[128];
    strcpy(zero, in_folder("zero.h5"));
    strcpy(a, in_folder("a.h5"));
    strcpy(b, in_folder("b.h5"));
    const char *inputs[] = {a, b};
    mm_merge_request request = {.pretrained = zero,
                                .inputs = inputs,
                                .n_inputs = 2,
                                .output = in_folder("whole.h5"),
                                .method = &mm_merge_task_arithmetic,
                                .coef = 1,
                                .device = device};
    int64_t n_won[2];
    mm_merge_result result = {.n_won = n_won};
    assert_int_equal(mm_merge(comm, NULL, &request, &result), MM_OK);
    assert_int_equal(result.n_elems, LARGE + 3);

    mm_weights *merged = NULL;
    bool right = mm_weights_open(request.output, &merged) == MM_OK;
    assert_everywhere(right);
    const mm_tensor_table *table = mm_weights_table(merged);
    float *values = calloc((size_t)table->n_elems, sizeof *values);
    right = values && table->n_tensors == 4 &&
            strcmp(mm_weights_model(merged), "{\"embed_dim\": 8}") == 0 &&
            mm_weights_provenance(merged) &&
            mm_weights_read(merged, 0, table->n_elems, values) == MM_OK &&
            mm_weights_verify(merged, NULL) == MM_OK;
    for (int i = 0; right && i < 4; i++)
        right = strcmp(table->tensors[i].name, whole[i].name) == 0;
    for (int64_t i = 0, folded = 0; right && i < table->n_elems; i++) {
        float base = (float)(i % 7 - 3);
        bool copied = i < 1 || (i > LARGE && i <= LARGE + 70001);
        /* a + b - base, all small whole numbers */
        float expected =
            copied ? base : (3.0f - 2.0f) * (float)(folded++ % 7 - 3) - base;
        right = values[i] == expected;
    }
    free(values);
    mm_weights_close(&merged);
    assert_everywhere(right);
}

/* ---- failures ----------------------------------------------------------- */

/** A merge fails in the same way on every rank, naming `what`, and leaves the
 * output as it was. */
static void assert_fails(const mm_merge_request *request, const char *what)
{
    int64_t n_won[MOST_TASKS];
    mm_merge_result result = {.n_won = n_won};
    bool had_output = mm_file_exists(request->output);
    mm_status st = mm_merge(comm, NULL, request, &result);
    int64_t code = st;
    assert_int_equal(mm_comm_broadcast(comm, &code, sizeof code, 0), MM_OK);
    char tmp[160];
    snprintf(tmp, sizeof tmp, "%s.tmp", request->output);
    assert_everywhere(st != MM_OK && code == (int64_t)st &&
                      strstr(mm_fail_message(), what) && !mm_file_exists(tmp) &&
                      mm_file_exists(request->output) == had_output);
}

static void a_file_missing_on_one_rank_fails_everywhere(void **state)
{
    (void)state;
    int last = mm_comm_n_ranks(comm) - 1;
    mm_merge_request request = golden_request(&mm_merge_magmax);
    const char *inputs[] = {golden_inputs[0], golden_inputs[1],
                            golden_inputs[2]};
    if (mm_comm_rank(comm) == last)
        inputs[1] = golden_path("tiny/seq/no_such_file.safetensors");
    request.inputs = inputs;
    request.output = in_folder("none.h5");
    assert_fails(&request, "no_such_file");
    if (last > 0) {
        char rank_text[32];
        snprintf(rank_text, sizeof rank_text, "rank %d: ", last);
        assert_non_null(strstr(mm_fail_message(), rank_text));
    }
}

static void ranks_that_see_other_files_are_told_apart(void **state)
{
    (void)state;
    const shape one[] = {{"visual.proj", 2}}, other[] = {{"visual.proj", 3}};
    assert_int_equal(save("one.h5", one, 1, 1, NULL), MM_OK);
    assert_int_equal(save("other.h5", other, 1, 1, NULL), MM_OK);
    if (mm_comm_n_ranks(comm) == 1)
        return;
    char path[128];
    strcpy(path, in_folder(mm_comm_rank(comm) == 1 ? "other.h5" : "one.h5"));
    const char *inputs[] = {path};
    mm_merge_request request = {.pretrained = path,
                                .inputs = inputs,
                                .n_inputs = 1,
                                .output = in_folder("none.h5"),
                                .method = &mm_merge_magmax,
                                .coef = 0.5,
                                .device = device};
    assert_fails(&request, "different content");
}

static void requests_that_cannot_be_meant_are_refused(void **state)
{
    (void)state;
    mm_merge_request request = golden_request(&mm_merge_magmax);
    request.output = in_folder("none.h5");
    request.n_inputs = 0;
    assert_fails(&request, "no inputs");

    request.n_inputs = 3;
    request.coef = 1e300;
    assert_fails(&request, "coefficient");

    request.coef = 0.5;
    request.output = in_folder("none.safetensors");
    assert_fails(&request, "magmax_convert");

    const char *h5_inputs[] = {in_folder("input.h5")};
    const shape one[] = {{"visual.proj", 2}};
    assert_int_equal(save("input.h5", one, 1, 1, NULL), MM_OK);
    mm_merge_request own = {.pretrained =
                                golden_path("tiny/weights.safetensors"),
                            .inputs = h5_inputs,
                            .n_inputs = 1,
                            .output = h5_inputs[0],
                            .method = &mm_merge_magmax,
                            .coef = 0.5,
                            .device = device};
    assert_fails(&own, "overwrite");
}

static void a_result_beyond_fp32_is_refused(void **state)
{
    (void)state;
    const shape one[] = {{"visual.proj", 7}};
    assert_int_equal(save("zero.h5", one, 1, -0x1p126f, NULL), MM_OK);
    assert_int_equal(save("one.h5", one, 1, 0x1p126f, NULL), MM_OK);
    char zero[128], path[128];
    strcpy(zero, in_folder("zero.h5"));
    strcpy(path, in_folder("one.h5"));
    const char *inputs[] = {path};
    mm_merge_request request = {.pretrained = zero,
                                .inputs = inputs,
                                .n_inputs = 1,
                                .output = in_folder("none.h5"),
                                .method = &mm_merge_magmax,
                                .coef = 0.5,
                                .device = device};
    assert_fails(&request, "visual.proj");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magmax_equals_the_golden_merge_bit_for_bit),
        cmocka_unit_test(average_equals_the_golden_merge_to_rounding),
        cmocka_unit_test(task_arithmetic_adds_the_scaled_sum),
        cmocka_unit_test(random_takes_each_weight_from_the_task_drawn),
        cmocka_unit_test(fewer_elements_than_ranks_merge),
        cmocka_unit_test(other_tensors_and_the_configuration_are_copied),
        cmocka_unit_test(a_file_missing_on_one_rank_fails_everywhere),
        cmocka_unit_test(ranks_that_see_other_files_are_told_apart),
        cmocka_unit_test(requests_that_cannot_be_meant_are_refused),
        cmocka_unit_test(a_result_beyond_fp32_is_refused),
    };
    if (mm_comm_create(&argc, &argv, &comm) != MM_OK)
        return 1;
    char gpu[32];
    snprintf(gpu, sizeof gpu, "cuda:%d", mm_comm_node_rank(comm));
    mm_status st =
        mm_device_open(getenv("MAGMAX_TEST_DEVICE") ? gpu : "cpu", 1, &device);
    if (mm_comm_agree(comm, st) != MM_OK) {
        fprintf(stderr, "%s\n", mm_fail_message());
        return 1;
    }
    int n_failed = cmocka_run_group_tests(tests, setup, teardown);
    mm_device_close(&device);
    mm_comm_destroy(&comm);
    return n_failed != 0;
}
