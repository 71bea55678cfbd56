/* Image embedding and its gradient: the class token, then patches, plus
 * positions.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <math.h>
#include <stdlib.h>

typedef struct embed_case {
    int64_t n_images, n_tokens, width;
    bool accumulate;
} embed_case;

static int64_t n_elems_of(const embed_case *c)
{
    return c->n_images * c->n_tokens * c->width;
}

static int64_t n_patch_elems_of(const embed_case *c)
{
    return c->n_images * (c->n_tokens - 1) * c->width;
}

static int64_t n_out_of(const embed_case *c)
{
    return n_elems_of(c) + n_patch_elems_of(c) + (c->n_tokens + 1) * c->width;
}

/* out: x, dpatches, dclass, dpos. */
static void compute(op_env *env, const void *context, float *out)
{
    const embed_case *c = context;
    int64_t n = n_elems_of(c), n_patches = n_patch_elems_of(c);
    int64_t n_pos = c->n_tokens * c->width;
    float *patches = op_random_acts(1, n_patches),
          *class = op_random(2, c->width);
    float *pos = op_random(3, n_pos), *dx = op_random_acts(4, n);
    mm_act *x = op_put_acts(env, NULL, n);
    mm_act *dpatches = op_put_acts(env, NULL, n_patches);
    float *dclass = op_put_floats(env, class, c->width);
    float *dpos = op_put_floats(env, pos, n_pos);
    op_ok(env->ops->embed_tokens(
        env->stream, x, op_put_acts(env, patches, n_patches),
        op_put_floats(env, class, c->width), op_put_floats(env, pos, n_pos),
        c->n_images, c->n_tokens, c->width));
    op_ok(env->ops->embed_tokens_grad(env->stream, dpatches, dclass, dpos,
                                      op_put_acts(env, dx, n), c->accumulate,
                                      c->n_images, c->n_tokens, c->width));
    op_get_acts(env, x, out, n);
    op_get_acts(env, dpatches, out + n, n_patches);
    op_get_floats(env, dclass, out + n + n_patches, c->width);
    op_get_floats(env, dpos, out + n + n_patches + c->width, n_pos);
    free(patches);
    free(class);
    free(pos);
    free(dx);
}

static void check(const embed_case *c)
{
    int64_t n = n_elems_of(c), n_patches = n_patch_elems_of(c);
    float *patches = op_random_acts(1, n_patches),
          *class = op_random(2, c->width);
    float *pos = op_random(3, c->n_tokens * c->width),
          *dx = op_random_acts(4, n);
    float *out = op_host(n_out_of(c) * (int64_t)sizeof *out);
    const float *dpatches = out + n, *dclass = dpatches + n_patches;
    const float *dpos = dclass + c->width;
    op_env env;
    op_open(&env, 2);
    compute(&env, c, out);
    op_close(&env);
    for (int64_t at = 0; at < n; at++) {
        int64_t b = at / c->width / c->n_tokens, j = at % c->width;
        int64_t t = at / c->width % c->n_tokens;
        int64_t patch = (b * (c->n_tokens - 1) + t - 1) * c->width + j;
        float from = t == 0 ? class[j] : patches[patch];
        assert_true(out[at] == op_act_of(from + pos[t * c->width + j]));
        if (t > 0)
            assert_true(dpatches[patch] == dx[at]);
    }
    for (int64_t at = 0; at < c->n_tokens * c->width; at++) {
        double sum = 0.0;
        for (int64_t b = 0; b < c->n_images; b++)
            sum += dx[b * c->n_tokens * c->width + at];
        double scale = (double)c->n_images + 1.0;
        op_close_to(dpos[at], sum + (c->accumulate ? pos[at] : 0.0), scale, 1);
        if (at < c->width)
            op_close_to(dclass[at], sum + (c->accumulate ? class[at] : 0.0),
                        scale, 1);
    }
    free(patches);
    free(class);
    free(pos);
    free(dx);
    free(out);
}

static void tokens_are_class_then_patches_plus_positions(void **state)
{
    (void)state;
    const embed_case cases[] = {{1, 1, 1, false},  {3, 5, 7, false},
                                {4, 17, 64, true}, {9, 50, 33, false},
                                {0, 5, 7, false},  {0, 5, 7, true},
                                {2, 1, 9, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&cases[i]);
}

static void embedding_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const embed_case c = {32, 17, 96, true};
    op_same_for_any_threads(compute, &c, n_out_of(&c));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tokens_are_class_then_patches_plus_positions),
    cmocka_unit_test(embedding_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
