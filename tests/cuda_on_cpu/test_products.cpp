/*
 * What products ask of cuBLASLt: which epilogues, algorithms and workspace, by
 * the variants that are set; and biases that are added without it.
 */
#include "kernels/cuda/product.h"
#include "kernels/load_cuda.h"
#include "tests/cuda_on_cpu/cublas.h"

#include <csetjmp>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

extern "C" {
#include <cmocka.h>

#include "src/base/module.h"

const void *mm_module_enter(const mm_module_host *from, int64_t table_bytes);
}

namespace
{

const mm_backend *backend;
char message[2048];

mm_status keep_message(mm_status status, const char *text)
{
    std::snprintf(message, sizeof message, "%s", text);
    return status;
}

const char *kept_message()
{
    return message;
}

void must(mm_status status)
{
    if (status != MM_OK)
        fail_msg("%s", message);
}

/** A device with variants, a stream, and memory of 16-byte aligned arrays. */
class rig
{
  public:
    rig(const char *precision, const char *variants)
    {
        setenv("MAGMAX_CUDA_VARIANTS", variants, 1);
        must(backend->open(precision, 1, &device));
        must(backend->stream_create(device, false, &stream));
    }
    rig(const rig &) = delete;
    rig &operator=(const rig &) = delete;
    ~rig()
    {
        for (void *memory : taken)
            backend->free(device, memory);
        backend->stream_destroy(stream);
        backend->close(device);
        unsetenv("MAGMAX_CUDA_VARIANTS");
    }
    void *take(std::size_t n_bytes, const void *from = nullptr)
    {
        const std::vector<char> zeros(n_bytes);
        void *memory = nullptr;
        must(backend->alloc(device, static_cast<int64_t>(n_bytes), &memory));
        taken.push_back(memory);
        must(backend->copy_to_device(stream, memory, from ? from : zeros.data(),
                                     static_cast<int64_t>(n_bytes)));
        must(backend->stream_sync(stream));
        return memory;
    }
    void get(void *to, const void *memory, std::size_t n_bytes)
    {
        must(backend->stream_sync(stream));
        must(backend->copy_to_host(stream, to, memory,
                                   static_cast<int64_t>(n_bytes)));
        must(backend->stream_sync(stream));
    }
    /** The product of a weight's gradient, 48 x 16 of 32 rows. */
    mm_emu::product_seen weight_grad()
    {
        enum : int { ROWS = 32, IN = 16, OUT = 48 };
        must(device->ops->linear_grad_weight(
            stream, static_cast<float *>(take(4 * IN * OUT)),
            static_cast<float *>(take(4 * OUT)),
            static_cast<mm_act *>(take(4 * ROWS * OUT)),
            static_cast<mm_act *>(take(4 * ROWS * IN)), false, ROWS, IN, OUT));
        must(backend->stream_sync(stream));
        return mm_emu::last_product;
    }
    mm_device *device = nullptr;
    mm_stream *stream = nullptr;

  private:
    std::vector<void *> taken;
};

const char *const precisions[] = {"fp32", "tf32", "bf16"};

enum : int { FIRST_ID = 60 }; /* of the emulation's algorithms */

const char title[] = "/* Algorithms of products\n";

/** Of that product in bf16 by the emulation's second algorithm. */
const char entry[] = "{48, 16, 32, 1, 0, 14, 0, 68, 1, 0, 128, 1, 61, 0, 1, 0, "
                     "0, 0, 0, 0, 0},\n";

/** A file that MAGMAX_CUDA_ALGORITHMS names, for as long as it is in scope. */
class algorithms
{
  public:
    explicit algorithms(const std::string &text)
    {
        std::FILE *file = std::fopen(path, "w");
        assert_non_null(file);
        std::fputs(text.c_str(), file);
        std::fclose(file);
        setenv("MAGMAX_CUDA_ALGORITHMS", path, 1);
    }
    algorithms(const algorithms &) = delete;
    algorithms &operator=(const algorithms &) = delete;
    ~algorithms()
    {
        unsetenv("MAGMAX_CUDA_ALGORITHMS");
        std::remove(path);
    }

  private:
    char path[64] = "/tmp/magmax_algorithms_XXXXXX";
    int made = mkstemp(path);
};

} // namespace

static void only_the_variant_library_has_it_add_up_bias_gradients(void **)
{
    for (const char *precision : precisions) {
        for (const char *variants :
             {"", "bias_sums=fused", "bias_sums=separate"}) {
            rig r(precision, variants);
            assert_int_equal(r.weight_grad().epilogue,
                             CUBLASLT_EPILOGUE_DEFAULT);
        }
        rig r(precision, "bias_sums=library");
        assert_int_equal(r.weight_grad().epilogue, CUBLASLT_EPILOGUE_BGRADB);
    }
}

static void workspace_is_as_large_as_the_variant_says(void **)
{
    const struct {
        const char *variants;
        std::size_t mib;
    } cases[] = {{"", 4}, /* as the library on an A100 */
                 {"workspace=default", 4},
                 {"workspace=32", 32},
                 {"workspace=64", 64},
                 {"workspace=128", 128}};
    for (const auto &c : cases) {
        rig r("bf16", c.variants);
        assert_int_equal(r.weight_grad().workspace_bytes, c.mib << 20);
    }
}

static void an_algorithm_comes_from_the_table_where_the_variant_says_so(void **)
{
    const algorithms file(std::string(title) + " * a comment */\n" + entry);
    {
        rig r("bf16", "algorithms=table");
        const mm_emu::product_seen seen = r.weight_grad();
        assert_int_equal(seen.algorithm, FIRST_ID + 1);
        assert_int_equal(seen.workspace_bytes, 128u << 20);
    }
    rig first("bf16", "algorithms=first");
    assert_int_equal(first.weight_grad().algorithm, FIRST_ID);
    rig other("fp32", "algorithms=table");
    assert_int_equal(other.weight_grad().algorithm, FIRST_ID);
}

static void an_algorithm_that_is_another_now_is_not_taken(void **)
{
    std::string changed = std::string(title) + entry;
    changed.replace(changed.find(" 61,"), 4, " 62,");
    const algorithms file(changed);
    rig r("bf16", "algorithms=table");
    assert_int_equal(r.weight_grad().algorithm, FIRST_ID);
}

static void the_table_that_is_built_in_can_be_read(void **)
{
    rig r("bf16", "algorithms=table");
    assert_int_equal(r.weight_grad().algorithm, FIRST_ID);
}

static void a_table_may_be_empty(void **)
{
    const algorithms file(title);
    rig r("bf16", "algorithms=table");
    assert_int_equal(r.weight_grad().algorithm, FIRST_ID);
}

static void a_file_that_is_no_table_is_refused(void **)
{
    std::string rank_8 = std::string(title) + entry;
    rank_8.replace(rank_8.find(" 128, 1,"), 8, " 128, 8,");
    const std::string texts[] = {"", "not a table\n", entry,
                                 std::string(title) + "{1, 2},\n", rank_8};
    setenv("MAGMAX_CUDA_VARIANTS", "algorithms=table", 1);
    for (const std::string &text : texts) {
        const algorithms file(text);
        mm_device *device = nullptr;
        assert_int_equal(backend->open("bf16", 1, &device), MM_E_FORMAT);
        assert_non_null(strstr(message, "/tmp/magmax_algorithms_"));
    }
    setenv("MAGMAX_CUDA_ALGORITHMS", "/nowhere/at/all", 1);
    mm_device *device = nullptr;
    assert_int_equal(backend->open("bf16", 1, &device), MM_E_IO);
    assert_non_null(strstr(message, "/nowhere/at/all"));
    unsetenv("MAGMAX_CUDA_ALGORITHMS");
    unsetenv("MAGMAX_CUDA_VARIANTS");
}

/* Small integers, so that both types hold the sums exactly. */
template <typename T, typename To>
static void check_biases(rig &r, cudaDataType_t type, int64_t m, int64_t n,
                         std::size_t shift, To to)
{
    const std::size_t size = static_cast<std::size_t>(m * n);
    const std::size_t width = static_cast<std::size_t>(n);
    for (int which = 0; which < 4; which++) {
        std::vector<T> bias(width + shift), addend(size + shift), got(size);
        for (std::size_t i = 0; i < width; i++)
            bias[i + shift] = to(static_cast<float>(i % 17));
        for (std::size_t i = 0; i < size; i++)
            addend[i + shift] = to(static_cast<float>(i % 13) - 20.0f);
        T *b = static_cast<T *>(r.take(bias.size() * sizeof(T), bias.data())) +
               shift;
        T *c =
            static_cast<T *>(r.take(addend.size() * sizeof(T), addend.data())) +
            shift;
        must(mm_cuda_add_bias(r.stream, type, c, which & 1 ? b : nullptr,
                              which & 2 ? c : nullptr, m, n));
        r.get(got.data(), c, size * sizeof(T));
        for (std::size_t i = 0; i < size; i++) {
            const float want =
                (which & 1 ? static_cast<float>(i % width % 17) : 0.0f) +
                (which & 2 ? static_cast<float>(i % 13) - 20.0f : 0.0f);
            const T rounded = to(want);
            if (memcmp(&rounded, &got[i], sizeof rounded) != 0)
                fail_msg("[%d, %d] shifted by %zu: element %zu is wrong",
                         static_cast<int>(m), static_cast<int>(n), shift, i);
        }
    }
}

static void biases_are_added_whatever_the_shape_and_address(void **)
{
    const int64_t shapes[][2] = {{1, 1},   {3, 8},    {5, 7},    {33, 256},
                                 {31, 40}, {70, 768}, {2, 1003}, {100, 4}};
    rig r("bf16", "");
    for (const auto &shape : shapes)
        for (std::size_t shift : {0, 1}) {
            check_biases<float>(r, CUDA_R_32F, shape[0], shape[1], shift,
                                [](float x) { return x; });
            check_biases<std::uint16_t>(
                r, CUDA_R_16BF, shape[0], shape[1], shift, [](float x) {
                    std::uint32_t bits;
                    memcpy(&bits, &x, sizeof bits);
                    return static_cast<std::uint16_t>(bits >> 16);
                });
        }
}

int main()
{
    const mm_module_host host = {MAGMAX_VERSION, keep_message, kept_message};
    backend = static_cast<const mm_backend *>(
        mm_module_enter(&host, mm_module_table_bytes));
    unsetenv("MAGMAX_CUDA_ALGORITHMS");
    if (!backend)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_variant_library_has_it_add_up_bias_gradients),
        cmocka_unit_test(workspace_is_as_large_as_the_variant_says),
        cmocka_unit_test(
            an_algorithm_comes_from_the_table_where_the_variant_says_so),
        cmocka_unit_test(an_algorithm_that_is_another_now_is_not_taken),
        cmocka_unit_test(the_table_that_is_built_in_can_be_read),
        cmocka_unit_test(a_table_may_be_empty),
        cmocka_unit_test(a_file_that_is_no_table_is_refused),
        cmocka_unit_test(biases_are_added_whatever_the_shape_and_address),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
