/* What tests of operations share: devices and precisions from the command line,
 * guarded buffers, random numbers, and comparisons with exact functions. */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD_BYTES = 64, GUARD = 0xA5 };

static const char *device_name = "cpu";

bool op_set_device(int argc, char **argv)
{
    if (argc > 1)
        device_name = argv[1];
    if (argc > 2)
        cmocka_set_test_filter(argv[2]);
    mm_device *device = NULL;
    mm_status status = mm_device_open(device_name, 1, &device);
    if (status != MM_OK)
        fprintf(stderr, "skipped: %s\n", mm_fail_message());
    mm_device_close(&device);
    return status == MM_OK;
}

const char *op_device_name(void)
{
    return device_name;
}

void op_check(mm_status status, const char *call, const char *file, int line)
{
    if (status == MM_OK)
        return;
    print_error("%s: %s\n", call, mm_fail_message());
    _fail(file, line);
}

void op_open(op_env *env, int n_threads)
{
    memset(env, 0, sizeof *env);
    op_ok(mm_device_open(device_name, n_threads, &env->device));
    op_ok(mm_stream_create(env->device, &env->stream));
    env->ops = mm_device_ops(env->device);
}

static void check_guards(op_env *env, int index)
{
    unsigned char guard[GUARD_BYTES];
    const char *memory = env->buffers[index].memory;
    int64_t behind = GUARD_BYTES + env->buffers[index].n_bytes;
    for (int side = 0; side < 2; side++) {
        op_ok(mm_copy_to_host(env->stream, guard, memory + (side ? behind : 0),
                              GUARD_BYTES));
        op_ok(mm_stream_sync(env->stream));
        for (int i = 0; i < GUARD_BYTES; i++)
            assert_int_equal(guard[i], GUARD);
    }
}

void op_close(op_env *env)
{
    for (int i = 0; i < env->n_buffers; i++) {
        check_guards(env, i);
        void *memory = env->buffers[i].memory;
        mm_device_free(env->device, &memory);
    }
    mm_stream_destroy(&env->stream);
    mm_device_close(&env->device);
}

void *op_put(op_env *env, const void *host, int64_t n_bytes)
{
    assert_true(env->n_buffers < OP_MAX_BUFFERS);
    void *memory = NULL;
    int64_t n_all = n_bytes + 2 * GUARD_BYTES;
    char *image = op_host(n_all);
    memset(image, GUARD, (size_t)n_all);
    if (host)
        memcpy(image + GUARD_BYTES, host, (size_t)n_bytes);
    op_ok(mm_device_alloc(env->device, n_all, &memory));
    op_ok(mm_copy_to_device(env->stream, memory, image, n_all));
    op_ok(mm_stream_sync(env->stream));
    free(image);
    env->buffers[env->n_buffers].memory = memory;
    env->buffers[env->n_buffers].n_bytes = n_bytes;
    env->n_buffers++;
    return (char *)memory + GUARD_BYTES;
}

void op_get(op_env *env, const void *buffer, void *host, int64_t n_bytes)
{
    op_ok(mm_copy_to_host(env->stream, host, buffer, n_bytes));
    op_ok(mm_stream_sync(env->stream));
    for (int i = 0; i < env->n_buffers; i++)
        if (env->buffers[i].memory + GUARD_BYTES == (const char *)buffer) {
            check_guards(env, i);
            return;
        }
    fail_msg("not a buffer of this device");
}

/* ---- activations -------------------------------------------------------- */

static bool has_bf16(void)
{
    return strstr(device_name, ":bf16") != NULL;
}

/** To nearest, ties to even; NaN stays NaN. */
static uint16_t bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x))
        return 0x7FFF;
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static float float_of(uint16_t bf16)
{
    uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float op_act_of(float x)
{
    return has_bf16() ? float_of(bf16_of(x)) : x;
}

mm_act *op_put_acts(op_env *env, const float *host, int64_t n)
{
    if (!has_bf16())
        return op_put(env, host, n * (int64_t)sizeof *host);
    assert_int_equal(mm_device_act_bytes(env->device), 2);
    uint16_t *acts = op_host(n * (int64_t)sizeof *acts);
    for (int64_t i = 0; host && i < n; i++)
        acts[i] = bf16_of(host[i]);
    void *buffer = op_put(env, host ? acts : NULL, n * (int64_t)sizeof *acts);
    free(acts);
    return buffer;
}

void op_get_acts(op_env *env, const mm_act *buffer, float *host, int64_t n)
{
    if (!has_bf16()) {
        op_get(env, buffer, host, n * (int64_t)sizeof *host);
        return;
    }
    uint16_t *acts = op_host(n * (int64_t)sizeof *acts);
    op_get(env, buffer, acts, n * (int64_t)sizeof *acts);
    for (int64_t i = 0; i < n; i++)
        host[i] = float_of(acts[i]);
    free(acts);
}

void op_reserve(op_env *env, int64_t n_tokens, int64_t width, int64_t n_heads)
{
    int64_t n_bytes = 0;
    op_ok(env->ops->scratch_bytes(&n_bytes, n_tokens, width, n_heads));
    op_ok(mm_stream_reserve(env->stream, n_bytes));
}

void *op_host(int64_t n_bytes)
{
    void *memory = calloc(1, (size_t)n_bytes + (n_bytes == 0));
    assert_non_null(memory);
    return memory;
}

float *op_random(uint64_t seed, int64_t n)
{
    float *x = op_host(n * (int64_t)sizeof *x);
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)((double)(state >> 40) * 0x1p-23 - 1.0);
    }
    return x;
}

float *op_random_acts(uint64_t seed, int64_t n)
{
    float *x = op_random(seed, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = op_act_of(x[i]);
    return x;
}

static bool rounds_to_nearest;

int op_expect_nearest(void **state)
{
    (void)state;
    rounds_to_nearest = true;
    return 0;
}

/** The largest relative error of a factor that the device rounds first. */
static double factor_error(void)
{
    if (!strstr(device_name, ":tf32"))
        return 0.0;
    return rounds_to_nearest ? 0x1p-11 : 0x1p-10;
}

double op_act_error(void)
{
    return has_bf16() ? 0x1p-8 : 0.0;
}

double op_act_scale(double want, int64_t n_terms)
{
    return op_act_error() * (1.0 + op_act_error()) * fabs(want) /
           op_tolerance(n_terms);
}

double op_tolerance(int64_t n_terms)
{
    const double unit = 0x1p-24; /* half a unit in fp32's last place */
    return unit * (8.0 + 2.0 * sqrt((double)n_terms)) + 2.0 * factor_error();
}

void op_check_bias(const float *dbias, const float *old, const float *dy,
                   int64_t stride, int64_t n_rows, int64_t width)
{
    for (int64_t j = 0; j < width; j++) {
        double sum = old ? old[j] : 0.0, size = fabs(sum);
        for (int64_t i = 0; i < n_rows; i++) {
            sum += dy[i * stride + j];
            size += fabs((double)dy[i * stride + j]);
        }
        op_act_close_to(dbias[j], sum, size + op_act_scale(size, n_rows),
                        n_rows);
    }
}

void op_compare(double got, double want, double scale, int64_t n_terms,
                const char *file, int line)
{
    double allowed = op_tolerance(n_terms) * scale;
    if (fabs(got - want) <= allowed)
        return;
    print_error("got %.9g, want %.9g, off by %.3g where %.3g is allowed\n", got,
                want, fabs(got - want), allowed);
    _fail(file, line);
}

void op_compare_bf16(double got, double want, double before, const char *file,
                     int line)
{
    int exponent;
    double fraction = frexp(want, &exponent); /* |want| is below 2^exponent */
    double allowed = before;
    if (fraction != 0.0)
        allowed += ldexp(1.0, exponent - 9);
    if (fabs(got - want) <= allowed)
        return;
    print_error("got %.9g, want %.9g, off by %.3g where %.3g is allowed\n", got,
                want, fabs(got - want), allowed);
    _fail(file, line);
}

float *op_every_bf16(void)
{
    float *x = op_host(OP_N_BF16 * (int64_t)sizeof *x);
    for (int i = 0; i < OP_N_BF16; i++)
        x[i] = float_of((uint16_t)(i / 2 + (i % 2 ? 0x8000 : 0)));
    return x;
}

static void assert_same(op_compute compute, const void *context, int64_t n,
                        const int *n_threads, int n_runs)
{
    float *first = op_host(n * (int64_t)sizeof(float));
    float *other = op_host(n * (int64_t)sizeof(float));
    for (int run = 0; run < n_runs; run++) {
        op_env env;
        op_open(&env, n_threads[run]);
        compute(&env, context, run == 0 ? first : other);
        op_close(&env);
        if (run > 0)
            assert_memory_equal(first, other, (size_t)n * sizeof(float));
    }
    free(first);
    free(other);
}

void op_same_for_any_threads(op_compute compute, const void *context, int64_t n)
{
    assert_same(compute, context, n, (const int[]){1, 2, 3}, 3);
}

void op_same_when_repeated(op_compute compute, const void *context, int64_t n)
{
    assert_same(compute, context, n, (const int[]){1, 1, 1}, 3);
    assert_same(compute, context, n, (const int[]){2, 2, 2}, 3);
    assert_same(compute, context, n, (const int[]){3, 3, 3}, 3);
}

double op_gelu(double x)
{
    return 0.5 * x * erfc(-x * sqrt(0.5));
}

double op_quick_gelu(double x)
{
    return x / (1.0 + exp(-1.702 * x));
}

double op_activation(mm_activation activation, double x)
{
    return activation == MM_GELU ? op_gelu(x) : op_quick_gelu(x);
}

/* Central difference of an exact function: good to about 1e-10. */
double op_activation_slope(mm_activation activation, double x)
{
    const double h = 1e-5;
    return (op_activation(activation, x + h) -
            op_activation(activation, x - h)) /
           (2.0 * h);
}
