/*
 * A full-size image tower, forward and backward, on weights from a closed
 * formula, against open_clip's float64 numbers.
 *
 * ctest: slow cost=20 processors=2 cuda=tf32,bf16
 */
#include "tests/parity/full_size.h"

static void vit_b_32_quickgelu_equals_open_clip(void **state)
{
    (void)state;
    check_full_size("ViT-B-32-quickgelu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vit_b_32_quickgelu_equals_open_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
