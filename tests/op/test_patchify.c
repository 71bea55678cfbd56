/* Cutting images into patches while normalising their pixels.
 *
 * ctest: cuda=bf16
 */

#include "tests/op/op_test.h"

#include <stdlib.h>

typedef struct patch_case {
    int64_t n_images, image_size, patch_size;
} patch_case;

static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};

static uint8_t *make_images(const patch_case *c)
{
    int64_t n = c->n_images * c->image_size * c->image_size * 3;
    uint8_t *images = op_host(n);
    for (int64_t i = 0; i < n; i++)
        images[i] = (uint8_t)((uint64_t)i * 2654435761u >> 13);
    return images;
}

static int64_t n_elems_of(const patch_case *c)
{
    return c->n_images * c->image_size * c->image_size * 3;
}

static void compute(op_env *env, const void *context, float *out)
{
    const patch_case *c = context;
    uint8_t *images = make_images(c);
    mm_act *columns = op_put_acts(env, NULL, n_elems_of(c));
    op_ok(env->ops->patchify(env->stream, columns,
                             op_put(env, images, n_elems_of(c)), c->n_images,
                             c->image_size, c->patch_size, mean, deviation));
    op_get_acts(env, columns, out, n_elems_of(c));
    free(images);
}

static void patchify_puts_every_normalised_pixel_in_its_place(void **state)
{
    (void)state;
    const patch_case cases[] = {{1, 1, 1},   {3, 28, 7}, {2, 32, 8},
                                {2, 45, 15}, {0, 8, 4},  {5, 64, 32}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const patch_case *k = &cases[i];
        int64_t size = k->image_size, side = k->patch_size, grid = size / side;
        uint8_t *images = make_images(k);
        float *out = op_host(n_elems_of(k) * 4);
        op_env env;
        op_open(&env, 2);
        compute(&env, k, out);
        op_close(&env);
        for (int64_t at = 0; at < n_elems_of(k); at++) {
            int64_t c = at % 3, x = at / 3 % size, y = at / 3 / size % size;
            int64_t b = at / 3 / size / size;
            int64_t patch = (b * grid + y / side) * grid + x / side;
            int64_t col = c * side * side + y % side * side + x % side;
            float want = ((float)images[at] / 255.0f - mean[c]) / deviation[c];
            op_act_close_to(out[patch * 3 * side * side + col], want, 2.0, 0);
        }
        free(images);
        free(out);
    }
}

static void patchify_refuses_patches_that_do_not_tile_the_image(void **state)
{
    (void)state;
    float floats[48];
    mm_act *out = (mm_act *)floats;
    uint8_t image[48] = {0};
    op_env env;
    op_open(&env, 1);
    assert_int_equal(
        env.ops->patchify(env.stream, out, image, 1, 4, 3, mean, deviation),
        MM_E_ARG);
    assert_int_equal(
        env.ops->patchify(env.stream, out, image, 1, 4, 0, mean, deviation),
        MM_E_ARG);
    op_close(&env);
}

static void patchify_has_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    const patch_case c = {16, 56, 14};
    op_same_for_any_threads(compute, &c, n_elems_of(&c));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(patchify_puts_every_normalised_pixel_in_its_place),
    cmocka_unit_test(patchify_refuses_patches_that_do_not_tile_the_image),
    cmocka_unit_test(patchify_has_the_same_bits_for_any_number_of_threads),
};
OP_MAIN(tests)
