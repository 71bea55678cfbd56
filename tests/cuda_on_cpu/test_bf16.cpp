/*
 * Kernels on bf16 activations against the same ops in fp32 on the same,
 * already rounded, numbers; and what only GPU kernels have to get right: odd
 * widths, unaligned pointers, many blocks.
 *
 * Exactly rounded results differ by one bf16 rounding, 2^-8 of their size.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/product.h"
#include "kernels/module.h"

#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <vector>

extern "C" {
#include <cmocka.h>

const mm_backend *mm_module_open(const mm_module_host *host);
}

namespace
{

mm_device *device;
mm_stream *stream;

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
        must(device->backend->alloc(
            device, static_cast<int64_t>((n + shift) * sizeof(T)), &memory));
        data = static_cast<T *>(memory) + shift;
    }
    buffer(const std::vector<float> &x, std::size_t shift = 0)
        : buffer(x.size(), shift)
    {
        std::vector<T> image(n);
        for (std::size_t i = 0; i < n; i++)
            mm_set(image[i], x[i]);
        must(device->backend->copy_to_device(
            stream, data, image.data(), static_cast<int64_t>(n * sizeof(T))));
        must(device->backend->stream_sync(stream));
    }
    buffer(const buffer &) = delete;
    buffer &operator=(const buffer &) = delete;
    ~buffer()
    {
        device->backend->release(device, memory);
    }
    std::vector<float> get() const
    {
        std::vector<T> image(n);
        must(device->backend->copy_to_host(
            stream, image.data(), data, static_cast<int64_t>(n * sizeof(T))));
        must(device->backend->stream_sync(stream));
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
void run_norm(const norm_case &c, std::vector<float> out[4],
              mm_status (*forward)(mm_stream *, T *, float *, float *,
                                   const T *, int64_t, const float *,
                                   const float *, float, int64_t, int64_t),
              mm_status (*backward)(mm_stream *, T *, float *, float *,
                                    const T *, const T *, const T *, int64_t,
                                    const float *, const float *, const float *,
                                    bool, int64_t, int64_t))
{
    const std::size_t n = static_cast<std::size_t>(c.n_rows * c.width);
    const std::size_t width = static_cast<std::size_t>(c.width);
    const std::size_t rows = static_cast<std::size_t>(c.n_rows);
    buffer<T> x(random_floats(1, n), c.shift), dy(random_floats(2, n), c.shift);
    buffer<T> residual(random_floats(3, n), c.shift), y(n, c.shift),
        dx(n, c.shift);
    buffer<float> gamma(random_floats(4, width)), beta(random_floats(5, width));
    buffer<float> mean(rows), rstd(rows), dgamma(width), dbeta(width);
    must(device->backend->stream_reserve(stream,
                                         mm_cuda_layernorm_scratch(c.width)));
    must(forward(stream, y.data, mean.data, rstd.data, x.data, c.width,
                 gamma.data, beta.data, 1e-5f, c.n_rows, c.width));
    must(backward(stream, dx.data, dgamma.data, dbeta.data, residual.data,
                  dy.data, x.data, c.width, mean.data, rstd.data, gamma.data,
                  false, c.n_rows, c.width));
    out[0] = y.get();
    out[1] = dx.get();
    out[2] = dgamma.get();
    out[3] = dbeta.get();
}

struct attention_case {
    int64_t n_images, n_tokens, n_heads, head_width;
    bool causal;
    std::size_t shift;
};

template <typename T>
void run_attention(const attention_case &c, std::vector<float> out[2],
                   mm_status (*forward)(mm_stream *, T *, float *, const T *,
                                        bool, int64_t, int64_t, int64_t,
                                        int64_t),
                   mm_status (*backward)(mm_stream *, T *, const T *, const T *,
                                         const float *, const T *, bool,
                                         int64_t, int64_t, int64_t, int64_t))
{
    const int64_t width = c.n_heads * c.head_width;
    const std::size_t n =
        static_cast<std::size_t>(c.n_images * c.n_tokens * width);
    buffer<T> qkv(random_floats(1, 3 * n), c.shift), dout(random_floats(2, n)),
        y(n), dqkv(3 * n);
    buffer<float> lse(
        static_cast<std::size_t>(c.n_images * c.n_tokens * c.n_heads));
    must(forward(stream, y.data, lse.data, qkv.data, c.causal, c.n_images,
                 c.n_tokens, width, c.n_heads));
    must(backward(stream, dqkv.data, dout.data, y.data, lse.data, qkv.data,
                  c.causal, c.n_images, c.n_tokens, width, c.n_heads));
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
        std::vector<float> wide[4], narrow[4];
        run_norm<float>(c, wide, mm_cuda_layernorm, mm_cuda_layernorm_grad);
        run_norm<mm_bf16>(c, narrow, mm_cuda_layernorm_bf16,
                          mm_cuda_layernorm_grad_bf16);
        for (int i = 0; i < 4; i++)
            assert_rounded(narrow[i], wide[i], 1e-5);
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
        run_attention<float>(c, wide, mm_cuda_attention,
                             mm_cuda_attention_grad);
        run_attention<mm_bf16>(c, narrow, mm_cuda_attention_bf16,
                               mm_cuda_attention_grad_bf16);
        assert_rounded(narrow[0], wide[0], 0x1p-8);
        assert_rounded(narrow[1], wide[1], 0x1p-5);
    }
}

static void attention_refuses_heads_that_are_too_wide(void **)
{
    buffer<float> x(3 * 300);
    assert_int_equal(
        mm_cuda_attention(stream, x.data, nullptr, x.data, false, 1, 1, 300, 1),
        MM_E_ARG);
    assert_non_null(strstr(message, "256"));
}

static void tokens_of_bf16_are_those_of_fp32_rounded(void **)
{
    enum : int { B = 3, T = 5 };
    for (int64_t width : {64, 6, 33}) {
        const std::size_t w = static_cast<std::size_t>(width);
        const std::vector<float> patches = random_floats(1, B * (T - 1) * w);
        const std::vector<float> dx = random_floats(2, B * T * w);
        buffer<float> of_class(random_floats(3, w));
        buffer<float> pos(random_floats(4, T * w));
        buffer<float> x(B * T * w), wide_patches(patches), wide_dx(dx);
        buffer<mm_bf16> y(B * T * w), narrow_patches(patches), narrow_dx(dx);
        must(mm_cuda_embed_tokens(stream, x.data, wide_patches.data,
                                  of_class.data, pos.data, B, T, width));
        must(mm_cuda_embed_tokens_bf16(stream, y.data, narrow_patches.data,
                                       of_class.data, pos.data, B, T, width));
        assert_rounded(y.get(), x.get(), 0);
        buffer<float> dclass(w), dpos(T * w), dclass_2(w), dpos_2(T * w);
        must(mm_cuda_embed_tokens_grad(stream, wide_patches.data, dclass.data,
                                       dpos.data, wide_dx.data, false, B, T,
                                       width));
        must(mm_cuda_embed_tokens_grad_bf16(
            stream, narrow_patches.data, dclass_2.data, dpos_2.data,
            narrow_dx.data, false, B, T, width));
        /* The sums are of the same numbers, in fp32. */
        assert_true(dclass.get() == dclass_2.get());
        assert_true(dpos.get() == dpos_2.get());
        assert_true(wide_patches.get() == narrow_patches.get());
        must(mm_cuda_copy_rows_bf16(stream, y.data, width, narrow_dx.data,
                                    2 * width, 2, width));
        must(mm_cuda_copy_rows(stream, x.data, width, wide_dx.data, 2 * width,
                               2, width));
        std::vector<float> rows = x.get(), same = y.get();
        for (std::size_t i = 0; i < 2 * w; i++)
            assert_true(rows[i] == same[i]);
    }
}

static void patches_of_bf16_are_those_of_fp32_rounded(void **)
{
    const float mean[3] = {0.48f, 0.46f, 0.41f}, std[3] = {0.27f, 0.26f, 0.28f};
    for (int64_t patch : {8, 14, 7}) {
        const int64_t size = 2 * patch;
        const std::size_t n = static_cast<std::size_t>(2 * size * size * 3);
        buffer<float> x(n), pixels((n + 3) / 4);
        buffer<mm_bf16> y(n);
        std::vector<unsigned char> bytes(n);
        for (std::size_t i = 0; i < n; i++)
            bytes[i] = static_cast<unsigned char>(i * 37);
        must(device->backend->copy_to_device(stream, pixels.data, bytes.data(),
                                             static_cast<int64_t>(n)));
        const uint8_t *images = reinterpret_cast<uint8_t *>(pixels.data);
        must(mm_cuda_patchify(stream, x.data, images, 2, size, patch, mean,
                              std));
        must(mm_cuda_patchify_bf16(stream, y.data, images, 2, size, patch, mean,
                                   std));
        assert_rounded(y.get(), x.get(), 0);
    }
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
            must(mm_cuda_activate(stream, y.data, x.data, kind, n));
            must(mm_cuda_activate_bf16(stream, y_2.data, x_2.data, kind, n));
            assert_rounded(y_2.get(), y.get(), 0);
            must(mm_cuda_activate_grad(stream, d.data, x.data, kind, n));
            must(mm_cuda_activate_grad_bf16(stream, d_2.data, x_2.data, kind,
                                            n));
            assert_rounded(d_2.get(), d.get(), 0);
            must(mm_cuda_column_sums(stream, sums.data, x.data, false, 59, 17));
            must(mm_cuda_column_sums_bf16(stream, sums_2.data, x_2.data, false,
                                          59, 17));
            assert_true(sums.get() == sums_2.get());
        }
}

static void more_blocks_than_65535_are_launched(void **)
{
    enum : int64_t { ROWS = 8 * 65600 + 3 };
    const std::vector<float> from = random_floats(1, ROWS);
    buffer<float> x(from), y(ROWS);
    must(mm_cuda_copy_rows(stream, y.data, 1, x.data, 1, ROWS, 1));
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
    must(mm_cuda_column_sums(stream, sums.data, from.data, false, ROWS, WIDTH));
    assert_true(sums.get() == want);
}

int main()
{
    const mm_module_host host = {MAGMAX_VERSION, sizeof(mm_ops),
                                 sizeof(mm_backend), keep_message,
                                 kept_message};
    const mm_backend *backend = mm_module_open(&host);
    if (!backend || backend->open(nullptr, 1, &device) != MM_OK ||
        backend->stream_create(device, &stream) != MM_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layernorm_of_bf16_is_that_of_fp32_rounded),
        cmocka_unit_test(attention_of_bf16_is_close_to_that_of_fp32),
        cmocka_unit_test(attention_refuses_heads_that_are_too_wide),
        cmocka_unit_test(tokens_of_bf16_are_those_of_fp32_rounded),
        cmocka_unit_test(patches_of_bf16_are_those_of_fp32_rounded),
        cmocka_unit_test(
            activations_and_sums_of_bf16_are_those_of_fp32_rounded),
        cmocka_unit_test(more_blocks_than_65535_are_launched),
        cmocka_unit_test(long_columns_are_summed_in_parts),
    };
    int n_failed = cmocka_run_group_tests(tests, nullptr, nullptr);
    backend->stream_destroy(stream);
    backend->close(device);
    return n_failed;
}
