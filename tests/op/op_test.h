#ifndef MAGMAX_TESTS_OP_OP_TEST_H
#define MAGMAX_TESTS_OP_OP_TEST_H

#include "kernels/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/*
 * What the op tests share: a device with guarded buffers, numbers to feed it,
 * and the one place where tolerances come from.
 */

enum { OP_MAX_BUFFERS = 32 };

/** A device under test. Buffers have sentinels on both sides, checked when
 * they are read and when the device closes. */
typedef struct op_env {
    mm_device *device;
    mm_stream *stream;
    const mm_ops *ops;
    struct {
        char *memory;
        int64_t n_bytes;
    } buffers[OP_MAX_BUFFERS];
    int n_buffers;
} op_env;

/** Run a group of tests on the device named by argv[1], "cpu" if there is
 * none; returns main's result, 77 (skipped) where the device is refused. */
#define OP_MAIN_AFTER(tests, setup)                        \
    int main(int argc, char **argv)                        \
    {                                                      \
        if (!op_set_device(argc, argv))                    \
            return 77;                                     \
        return cmocka_run_group_tests(tests, setup, NULL); \
    }
#define OP_MAIN(tests) OP_MAIN_AFTER(tests, NULL)
bool op_set_device(int argc, char **argv);
const char *op_device_name(void);

void op_open(op_env *env, int n_threads);
void op_close(op_env *env);

/** A guarded buffer of `n_bytes` holding a copy of `host`, or bytes 0xA5 where
 * it is NULL. Freed by op_close. */
void *op_put(op_env *env, const void *host, int64_t n_bytes);

/** Copy such a buffer's bytes to `host` after checking its sentinels. */
void op_get(op_env *env, const void *buffer, void *host, int64_t n_bytes);

static inline float *op_put_floats(op_env *env, const float *host, int64_t n)
{
    return op_put(env, host, n * (int64_t)sizeof *host);
}

static inline void op_get_floats(op_env *env, const float *buffer, float *host,
                                 int64_t n)
{
    op_get(env, buffer, host, n * (int64_t)sizeof *host);
}

/** Likewise activations, in the device's type for them; `host` holds numbers
 * that it has, such as op_random_acts's. */
mm_act *op_put_acts(op_env *env, const float *host, int64_t n);
void op_get_acts(op_env *env, const mm_act *buffer, float *host, int64_t n);

/** Reserve scratch for a model of these sizes. */
void op_reserve(op_env *env, int64_t n_tokens, int64_t width, int64_t n_heads);

/** Host memory, zeroed; at least one byte; freed with free(). */
void *op_host(int64_t n_bytes);

/** `n` numbers in [-1, 1), the same for the same seed; freed with free(). */
float *op_random(uint64_t seed, int64_t n);

/** Such numbers rounded to the device's type of activations: what a test puts
 * there, its reference computes from. */
float *op_random_acts(uint64_t seed, int64_t n);

/** x rounded to that type. */
float op_act_of(float x);

/** The call succeeded; prints its message if not. */
#define op_ok(call) op_check((call), #call, __FILE__, __LINE__)
void op_check(mm_status status, const char *call, const char *file, int line);

/**
 * Relative error allowed for a result that adds up `n_terms` fp32 products: a
 * few roundings, plus a random walk over the sum; where the device rounds the
 * factors (cuda:tf32), also that of both. Relative to the size of the terms,
 * which callers give as the scale.
 */
double op_tolerance(int64_t n_terms);

/** A setup for OP_MAIN_AFTER: in tf32 the op rounds its factors to nearest, as
 * our own kernels do. What products promise is the number of bits. */
int op_expect_nearest(void **state);

/** Half a unit in the last place of an activation, relative to it: what one
 * rounding to that type costs; 0 where activations are fp32, whose rounding is
 * in op_tolerance. */
double op_act_error(void);

/** |got - want| <= op_tolerance(n_terms) * scale. */
#define op_close_to(got, want, scale, n_terms) \
    op_compare((got), (want), (scale), (n_terms), __FILE__, __LINE__)
void op_compare(double got, double want, double scale, int64_t n_terms,
                const char *file, int line);

/** Likewise of an activation, which has been rounded after the sum: that
 * rounding on top, of a number as large as `want` or what it comes from. */
#define op_act_close_to(got, want, scale, n_terms)                       \
    op_compare((got), (want), (scale) + op_act_scale((want), (n_terms)), \
               (n_terms), __FILE__, __LINE__)
double op_act_scale(double want, int64_t n_terms);

/**
 * The gradient of a bias: dbias is `old` (0 where that is NULL) plus the column
 * sums of the activations that the op made, added up before or after they were
 * rounded.
 *
 * Shapes   dbias, old [width]; dy: n_rows rows of `width`, `stride` apart.
 */
void op_check_bias(const float *dbias, const float *old, const float *dy,
                   int64_t stride, int64_t n_rows, int64_t width);

/**
 * Call compute(env, context, out) on devices with 1, 2 and 3 threads and check
 * that it leaves the same `n` floats each time.
 */
typedef void (*op_compute)(op_env *env, const void *context, float *out);
void op_same_for_any_threads(op_compute compute, const void *context,
                             int64_t n);

/** Likewise of runs that have as many threads: products promise no more. */
void op_same_when_repeated(op_compute compute, const void *context, int64_t n);

/** Double-precision references. */
double op_gelu(double x);
double op_quick_gelu(double x);
double op_activation(mm_activation activation, double x);
double op_activation_slope(mm_activation activation, double x);

#endif
