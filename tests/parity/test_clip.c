/*
 * Full-size image towers, forward and backward, on weights from a closed
 * formula, against open_clip's float64 numbers.
 *
 * ctest: slow timeout=300 cost=20 processors=2 gpu
 */
#include "tests/parity/full_size.h"

static void vit_b_32_quickgelu_equals_open_clip(void **state)
{
    (void)state;
    check_full_size("ViT-B-32-quickgelu");
}

__attribute__((unused)) static void vit_b_16_equals_open_clip(void **state)
{
    (void)state;
    check_full_size("ViT-B-16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vit_b_32_quickgelu_equals_open_clip),
#ifndef __SANITIZE_ADDRESS__ /* minutes there, over the same code */
        cmocka_unit_test(vit_b_16_equals_open_clip),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
