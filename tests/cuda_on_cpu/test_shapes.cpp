/*
 * What only GPU kernels have to get right: widths and addresses that 16-byte
 * accesses do not fit, many blocks; in bf16 against fp32 on the same, already
 * rounded, numbers.
 *
 * Exactly rounded results differ by one bf16 rounding, 2^-8 of their size.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/product.h"
#include "kernels/load_cuda.h"

#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <vector>

extern "C" {
#include <cmocka.h>

#include "src/base/module.h"

const void *mm_module_enter(const mm_module_host *from, int64_t table_bytes);
}

namespace
{

/* Of activations in fp32 and in bf16: one GPU, its memory is shared. */
mm_device *devices[2];
mm_stream *streams[2];

template <typename T> mm_stream *stream_of()
{
    return streams[sizeof(T) == 2];
}

template <typename T> mm_act *act(T *x)
{
    return reinterpret_cast<mm_act *>(x);
}

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

std::vector<float> random_floats(unsigned seed, std::size_t n)
{
    std::vector<float> x(n);
    std::uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    for (float &value : x) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        value = static_cast<float>(state >> 40) * 0x1p-23f - 1.0f;
        value = __bfloat162float(__float2bfloat16(value));
    }
    return x;
}

/** A device array of either type, `shift` elements from an aligned address. */
template <typename T> class buffer
{
  public:
    explicit buffer(std::size_t n_elems, std::size_t shift = 0) : n(n_elems)
    {
        must(devices[0]->backend->alloc(
            devices[0], static_cast<int64_t>((n + shift) * sizeof(T)),
            &memory));
        data = static_cast<T *>(memory) + shift;
    }
    buffer(const std::vector<float> &x, std::size_t shift = 0)
        : buffer(x.size(), shift)
    {
        std::vector<T> image(n);
        for (std::size_t i = 0; i < n; i++)
            mm_set(image[i], x[i]);
        must(devices[0]->backend->copy_to_device(
            streams[0], data, image.data(),
            static_cast<int64_t>(n * sizeof(T))));
        must(devices[0]->backend->stream_sync(streams[0]));
    }
    buffer(const buffer &) = delete;
    buffer &operator=(const buffer &) = delete;
    ~buffer()
    {
        devices[0]->backend->free(devices[0], memory);
    }
    std::vector<float> get() const
    {
        std::vector<T> image(n);
        must(devices[1]->backend->stream_sync(streams[1]));
        must(devices[0]->backend->copy_to_host(
            streams[0], image.data(), data,
            static_cast<int64_t>(n * sizeof(T))));
        must(devices[0]->backend->stream_sync(streams[0]));
        std::vector<float> x(n);
        for (std::size_t i = 0; i < n; i++)
            x[i] = mm_float_of(image[i]);
        return x;
    }
    T *data;

  private:
    std::size_t n;
    void *memory = nullptr;
};

/** As close as bf16 is to numbers of their size, plus `absolute`. */
void assert_rounded(const std::vector<float> &got,
                    const std::vector<float> &want, double absolute)
{
    assert_int_equal(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); i++) {
        double allowed = 0x1p-8 * std::fabs(want[i]) + absolute;
        if (!(std::fabs(got[i] - want[i]) <= allowed))
            fail_msg("element %zu: got %.9g, want %.9g +- %.3g", i, got[i],
                     want[i], allowed);
    }
}

struct norm_case {
    int64_t n_rows, width;
    std::size_t shift;
};

template <typename T>
void run_norm(const norm_case &c, std::vector<float> out[5])
{
    const std::size_t n = static_cast<std::size_t>(c.n_rows * c.width);
    const std::size_t width = static_cast<std::size_t>(c.width);
    const std::size_t rows = static_cast<std::size_t>(c.n_rows);
    buffer<T> x(random_floats(1, n), c.shift), dy(random_floats(2, n), c.shift);
    buffer<T> residual(random_floats(3, n), c.shift), y(n, c.shift),
        dx(n, c.shift);
    buffer<float> gamma(random_floats(4, width)), beta(random_floats(5, width));
    buffer<float> mean(rows), rstd(rows), dgamma(width), dbeta(width),
        dbias(width);
    mm_stream *stream = stream_of<T>();
    must(devices[0]->backend->stream_reserve(
        stream, mm_cuda_layernorm_scratch(c.width)));
    must(mm_cuda_layernorm(stream, act(y.data), mean.data, rstd.data,
                           act(x.data), c.width, gamma.data, beta.data, 1e-5f,
                           c.n_rows, c.width));
    must(mm_cuda_layernorm_grad(stream, act(dx.data), dgamma.data, dbeta.data,
                                dbias.data, act(residual.data), act(dy.data),
                                act(x.data), c.width, mean.data, rstd.data,
                                gamma.data, false, c.n_rows, c.width));
    out[0] = y.get();
    out[1] = dx.get();
    out[2] = dgamma.get();
    out[3] = dbeta.get();
    out[4] = dbias.get();
}

struct attention_case {
    int64_t n_images, n_tokens, n_heads, head_width;
    bool causal;
    std::size_t shift;
};

template <typename T>
void run_attention(const attention_case &c, std::vector<float> out[2])
{
    const int64_t width = c.n_heads * c.head_width;
    const std::size_t n =
        static_cast<std::size_t>(c.n_images * c.n_tokens * width);
    buffer<T> qkv(random_floats(1, 3 * n), c.shift), dout(random_floats(2, n)),
        y(n), dqkv(3 * n);
    buffer<float> lse(
        static_cast<std::size_t>(c.n_images * c.n_tokens * c.n_heads));
    mm_stream *stream = stream_of<T>();
    must(mm_cuda_attention(stream, act(y.data), lse.data, act(qkv.data),
                           c.causal, c.n_images, c.n_tokens, width, c.n_heads));
    must(mm_cuda_attention_grad(stream, act(dqkv.data), nullptr, act(dout.data),
                                act(y.data), lse.data, act(qkv.data), c.causal,
                                false, c.n_images, c.n_tokens, width,
                                c.n_heads));
    out[0] = y.get();
    out[1] = dqkv.get();
}

} // namespace

static void layernorm_of_bf16_is_that_of_fp32_rounded(void **)
{
    const norm_case cases[] = {{5, 8, 0},    {17, 64, 0},  {9, 768, 0},
                               {9, 1024, 0}, {3, 1280, 0}, {3, 1288, 0},
                               {7, 33, 0},   {5, 768, 1}};
    for (const norm_case &c : cases) {
        std::vector<float> wide[5], narrow[5];
        run_norm<float>(c, wide);
        run_norm<mm_bf16>(c, narrow);
        for (int i = 0; i < 4; i++)
            assert_rounded(narrow[i], wide[i], 1e-5);
        /* Sums of dx over rows, which may have been rounded beforehand. */
        assert_rounded(narrow[4], wide[4], 0x1p-6 * double(c.n_rows));
    }
}

/* Inputs are exact; p and ds are rounded to 8 bits before they are summed with
 * v, k and q below 1, and out to 8 bits before it enters delta. Sums of ds over
 * T tokens each add 2^-8 of |ds| |q| <= p D / sqrt(D). */
static void attention_of_bf16_is_close_to_that_of_fp32(void **)
{
    const attention_case cases[] = {
        {2, 50, 2, 64, false, 0},  {1, 197, 1, 64, false, 0},
        {1, 257, 1, 64, false, 0}, {1, 577, 1, 64, false, 0},
        {1, 77, 2, 64, true, 0},   {1, 1, 1, 64, false, 0},
        {1, 64, 1, 64, true, 0},   {2, 17, 3, 8, false, 0},
        {1, 50, 2, 16, true, 0},   {1, 65, 2, 80, false, 0},
        {1, 33, 1, 256, false, 0}, {1, 40, 2, 64, false, 1}};
    for (const attention_case &c : cases) {
        std::vector<float> wide[2], narrow[2];
        run_attention<float>(c, wide);
        run_attention<mm_bf16>(c, narrow);
        assert_rounded(narrow[0], wide[0], 0x1p-8);
        assert_rounded(narrow[1], wide[1], 0x1p-5);
    }
}

static void attention_refuses_heads_that_are_too_wide(void **)
{
    buffer<float> x(3 * 300);
    assert_int_equal(mm_cuda_attention(stream_of<float>(), act(x.data), nullptr,
                                       act(x.data), false, 1, 1, 300, 1),
                     MM_E_ARG);
    assert_non_null(strstr(message, "256"));
}

static void activations_and_sums_of_bf16_are_those_of_fp32_rounded(void **)
{
    for (std::size_t shift : {0, 1})
        for (mm_activation kind : {MM_GELU, MM_QUICK_GELU}) {
            const std::size_t n = 1003;
            const std::vector<float> pre = random_floats(1, n);
            buffer<float> x(pre, shift), y(n, shift), d(pre, shift), sums(17);
            buffer<mm_bf16> x_2(pre, shift), y_2(n, shift), d_2(pre, shift);
            buffer<float> sums_2(17);
            must(mm_cuda_activate(streams[0], act(y.data), act(x.data), kind,
                                  n));
            must(mm_cuda_activate(streams[1], act(y_2.data), act(x_2.data),
                                  kind, n));
            assert_rounded(y_2.get(), y.get(), 0);
            must(mm_cuda_activate_grad(streams[0], act(d.data), nullptr,
                                       act(x.data), kind, false, 1, n));
            must(mm_cuda_activate_grad(streams[1], act(d_2.data), nullptr,
                                       act(x_2.data), kind, false, 1, n));
            assert_rounded(d_2.get(), d.get(), 0);
            must(mm_cuda_column_sums(streams[0], CUDA_R_32F, sums.data, x.data,
                                     17, false, 59, 17));
            must(mm_cuda_column_sums(streams[1], CUDA_R_16BF, sums_2.data,
                                     x_2.data, 17, false, 59, 17));
            assert_true(sums.get() == sums_2.get());
        }
}

/* Sums of the gradient before it was rounded, or after; `old` on top. */
template <typename T>
static std::vector<float> sums_of_gradient(std::size_t shift)
{
    enum : int64_t { ROWS = 700, WIDTH = 264 };
    const std::size_t n = ROWS * WIDTH;
    const std::vector<float> old = random_floats(3, WIDTH);
    buffer<T> x(random_floats(1, n), shift), d(random_floats(2, n), shift);
    buffer<float> sums(old);
    must(mm_cuda_activate_grad(stream_of<T>(), act(d.data), sums.data,
                               act(x.data), MM_GELU, true, ROWS, WIDTH));
    const std::vector<float> got = sums.get(), of = d.get();
    for (std::size_t j = 0; j < WIDTH; j++) {
        double want = old[j], size = 0.0;
        for (std::size_t i = j; i < n; i += WIDTH) {
            want += of[i];
            size += std::fabs(of[i]);
        }
        const double allowed = (sizeof(T) == 2 ? 0x1p-8 : 0x1p-20) * size;
        if (!(std::fabs(got[j] - want) <= allowed))
            fail_msg("column %zu: got %.9g, want %.9g", j, got[j], want);
    }
    return got;
}

static void sums_of_gradients_do_not_depend_on_addresses(void **)
{
    assert_true(sums_of_gradient<float>(0) == sums_of_gradient<float>(1));
    assert_true(sums_of_gradient<mm_bf16>(0) == sums_of_gradient<mm_bf16>(1));
}

static void more_blocks_than_65535_are_launched(void **)
{
    enum : int64_t { ROWS = 8 * 65600 + 3 };
    const std::vector<float> from = random_floats(1, ROWS);
    buffer<float> x(from), y(ROWS);
    must(
        mm_cuda_copy_rows(streams[0], act(y.data), 1, act(x.data), 1, ROWS, 1));
    assert_true(y.get() == from);
}

static void long_columns_are_summed_in_parts(void **)
{
    enum : int { ROWS = 5000, WIDTH = 40 };
    std::vector<float> x(ROWS * WIDTH), want(WIDTH);
    for (std::size_t i = 0; i < x.size(); i++) {
        x[i] = static_cast<float>(i * 7 % 15) - 7.0f;
        want[i % WIDTH] += x[i]; /* small integers: exact in any order */
    }
    buffer<float> from(x), sums(WIDTH);
    must(mm_cuda_column_sums(streams[0], CUDA_R_32F, sums.data, from.data,
                             WIDTH, false, ROWS, WIDTH));
    assert_true(sums.get() == want);
}

int main()
{
    const mm_module_host host = {MAGMAX_VERSION, keep_message, kept_message};
    const mm_backend *backend = static_cast<const mm_backend *>(
        mm_module_enter(&host, mm_module_table_bytes));
    const char *const precisions[2] = {"fp32", "bf16"};
    for (int i = 0; i < 2; i++)
        if (!backend || backend->open(precisions[i], 1, &devices[i]) != MM_OK ||
            backend->stream_create(devices[i], false, &streams[i]) != MM_OK)
            return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layernorm_of_bf16_is_that_of_fp32_rounded),
        cmocka_unit_test(attention_of_bf16_is_close_to_that_of_fp32),
        cmocka_unit_test(attention_refuses_heads_that_are_too_wide),
        cmocka_unit_test(
            activations_and_sums_of_bf16_are_those_of_fp32_rounded),
        cmocka_unit_test(sums_of_gradients_do_not_depend_on_addresses),
        cmocka_unit_test(more_blocks_than_65535_are_launched),
        cmocka_unit_test(long_columns_are_summed_in_parts),
    };
    int n_failed = cmocka_run_group_tests(tests, nullptr, nullptr);
    for (int i = 0; i < 2; i++) {
        backend->stream_destroy(streams[i]);
        backend->close(devices[i]);
    }
    return n_failed;
}
