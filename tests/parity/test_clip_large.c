/*
 * As test_clip, the tower of 304 million weights.
 *
 * ctest: slow cost=40 processors=2 gpu=tf32,bf16
 */
#include "tests/parity/full_size.h"

static void vit_l_14_quickgelu_equals_open_clip(void **state)
{
    (void)state;
    check_full_size("ViT-L-14-quickgelu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vit_l_14_quickgelu_equals_open_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
