/* How gradients are divided into messages, from what is handed to MPI.
 *
 * ctest: cuda ranks=2,3
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/ops.h"
#include "src/model/params.h"
#include "tests/mpi/reducer_scene.h"

#include <dlfcn.h>
#include <mpi.h>

enum { MOST_SENT = 128 };
static int sent[MOST_SENT]; /* elements of each message */
static int n_sent;

/** In place of MPI's, which it calls: the transport's of the CPU, and what the
 * stand-in for NCCL calls. */
int MPI_Iallreduce(const void *from, void *to, int count, MPI_Datatype type,
                   MPI_Op op, MPI_Comm comm, MPI_Request *request)
{
    bool is_sum = type == MPI_FLOAT || type == MPI_UINT16_T;
    if (is_sum && n_sent < MOST_SENT)
        sent[n_sent++] = count;
    return PMPI_Iallreduce(from, to, count, type, op, comm, request);
}

/* Numbers of elements are those of training, divided by SCALE. */

enum { SCALE = 1000, BUCKET = 6500000 / SCALE };

/** Sums a gradient of the model's proportions as its backward pass does; gives
 * the lengths of its ranges. */
static int sum_gradient_of(const scene *s, const mm_model_config *config,
                           int64_t *lengths)
{
    mm_reducer *reducer = create(s, BUCKET);
    void *memory = NULL;
    int64_t lo, hi, n_elems;
    int n_ranges = 0;
    mm_params_range(config, config->image.n_layers - 1, &lo, &hi);
    n_elems = hi / SCALE;
    assert_int_equal(mm_device_alloc(s->device, 4 * n_elems, &memory), MM_OK);
    assert_int_equal(
        mm_device_ops(s->device)->fill(s->stream, memory, 1, n_elems), MM_OK);
    n_sent = 0;
    for (int64_t layer = config->image.n_layers - 1; layer >= -1; layer--) {
        mm_params_range(config, layer, &lo, &hi);
        lengths[n_ranges++] = hi / SCALE - lo / SCALE;
        assert_int_equal(
            mm_reducer_ready(reducer, memory, lo / SCALE, hi / SCALE), MM_OK);
    }
    assert_int_equal(mm_reducer_finish(reducer), MM_OK);
    assert_int_equal(mm_reducer_wait(reducer), MM_OK);
    mm_reducer_destroy(&reducer);
    mm_device_free(s->device, &memory);
    return n_ranges;
}

static void each_block_is_one_message(void **state)
{
    scene *s = *state;
    static const char *const models[] = {"ViT-B-16", "ViT-B-32", "ViT-L-14"};
    int64_t lengths[MOST_SENT];
    for (int m = 0; m < 3; m++) {
        mm_model_config config = {0};
        assert_int_equal(mm_model_config_find(models[m], &config), MM_OK);
        int n_ranges = sum_gradient_of(s, &config, lengths);
        assert_int_equal(n_ranges, config.image.n_layers + 1);
        assert_int_equal(n_sent, n_ranges);
        for (int i = 0; i < n_ranges; i++)
            assert_int_equal(sent[i], lengths[i]);
        for (int i = 0; i + 1 < n_ranges; i++)
            assert_in_range(sent[i], BUCKET, 2 * BUCKET - 1);
        mm_model_config_clear(&config);
    }
}

static void a_block_of_three_buckets_is_three_equal_messages(void **state)
{
    scene *s = *state;
    static const char huge[] =
        "{\"embed_dim\": 1024, \"vision_cfg\": {\"image_size\": 224,"
        " \"patch_size\": 14, \"width\": 1280, \"layers\": 32,"
        " \"head_width\": 80}}";
    mm_model_config config = {0};
    int64_t lengths[MOST_SENT];
    assert_int_equal(mm_model_config_parse(huge, "ViT-H-14", &config), MM_OK);
    int n_ranges = sum_gradient_of(s, &config, lengths);
    assert_int_equal(n_ranges, 33);
    assert_int_equal(n_sent, 3 * 32 + 1);
    for (int i = 0; i < n_ranges - 1; i++) {
        const int *three = &sent[3 * i];
        assert_int_equal(three[0] + three[1] + three[2], lengths[i]);
        for (int k = 0; k < 3; k++)
            assert_in_range(three[k], lengths[i] / 3 - MM_REDUCER_ALIGN,
                            lengths[i] / 3 + MM_REDUCER_ALIGN);
    }
    assert_int_equal(sent[n_sent - 1], lengths[n_ranges - 1]);
    mm_model_config_clear(&config);
}

static void small_ranges_leave_together_and_whole(void **state)
{
    scene *s = *state;
    mm_reducer *reducer = create(s, 1000);
    fill(s, 0);
    n_sent = 0;
    /* 400, 800, 1200: sent; 2799, sent; 1: the last one. */
    static const int cuts[] = {N, N - 400, N - 800, N - 1200, 1, 0};
    for (int i = 1; i < 6; i++)
        assert_int_equal(
            mm_reducer_ready(reducer, s->memory, cuts[i], cuts[i - 1]), MM_OK);
    finish(s, reducer);
    assert_summed(s, 0, N, 0);
    assert_int_equal(n_sent, 4);
    assert_int_equal(sent[0], 1200);
    assert_int_equal(sent[1] + sent[2], 2799);
    /* They lie at 1 to 1400 to 2800, the inner one aligned. */
    assert_int_equal(sent[1], 1400 / MM_REDUCER_ALIGN * MM_REDUCER_ALIGN - 1);
    assert_int_equal(sent[3], 1);
    mm_reducer_destroy(&reducer);
}

static mm_status pack(void *context, mm_stream *stream, void *wire,
                      const float *values, int64_t n)
{
    const mm_device *device = context;
    return mm_device_ops(device)->float_to_act(stream, wire, values, n);
}

static mm_status unpack(void *context, mm_stream *stream, float *values,
                        const void *wire, int64_t n)
{
    const mm_device *device = context;
    return mm_device_ops(device)->act_to_float(stream, values, wire, n);
}

/** The emulation ends a program that leaves its memory. */
static void the_longest_messages_have_room_as_bf16(void **state)
{
    scene *s = *state;
    if (!mm_device_has_own_memory(s->device))
        skip();
    scene other = *s;
    void *memory = NULL;
    assert_int_equal(mm_device_choose("cuda", "bf16", 1,
                                      mm_comm_node_rank(s->comm),
                                      &other.device),
                     MM_OK);
    assert_int_equal(mm_stream_create(other.device, &other.stream), MM_OK);
    assert_int_equal(mm_device_alloc(other.device, sizeof other.grad, &memory),
                     MM_OK);
    other.memory = memory;
    const mm_reducer_wire wire = {pack, unpack, other.device};
    /* All in one, in two, in many. */
    static const int64_t buckets[] = {N / 2 + 1, N / 2, 33};
    for (int b = 0; b < 3; b++) {
        const mm_reducer_plan plan = {
            .comm = s->comm,
            .device = other.device,
            .stream = other.stream,
            .bucket_elems = buckets[b],
            .bf16 = &wire,
        };
        mm_reducer *reducer = NULL;
        assert_int_equal(mm_reducer_create(&plan, &reducer), MM_OK);
        fill(&other, 0);
        assert_int_equal(mm_reducer_ready(reducer, other.memory, 0, N), MM_OK);
        finish(&other, reducer);
        assert_summed(&other, 0, N, 0);
        mm_reducer_destroy(&reducer);
    }
    mm_device_free(other.device, &memory);
    mm_stream_destroy(&other.stream);
    mm_device_close(&other.device);
}

static void sums_go_before_what_computes(void **state)
{
    scene *s = *state;
    const char *file = getenv("MAGMAX_NCCL_MODULE");
    if (!mm_device_has_own_memory(s->device))
        skip();
    mm_reducer *reducer = create(s, N);
    fill(s, 0);
    assert_int_equal(mm_reducer_ready(reducer, s->memory, 0, N), MM_OK);
    finish(s, reducer);
    void *module = dlopen(file, RTLD_LAZY | RTLD_NOLOAD);
    const int *priority = module ? dlsym(module, "mm_emu_nccl_priority") : NULL;
    assert_non_null(priority);
    assert_int_equal(*priority, -5); /* the highest, in streams.cpp */
    dlclose(module);
    mm_reducer_destroy(&reducer);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(each_block_is_one_message),
        cmocka_unit_test(a_block_of_three_buckets_is_three_equal_messages),
        cmocka_unit_test(small_ranges_leave_together_and_whole),
        cmocka_unit_test(the_longest_messages_have_room_as_bf16),
        cmocka_unit_test(sums_go_before_what_computes),
    };
    return cmocka_run_group_tests(cases, build_scene, clear_scene);
}
