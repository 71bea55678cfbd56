/*
 * As test_clip, a tower of smaller patches, 197 tokens, and exact GELU.
 *
 * ctest: slow processors=2 gpu=tf32,bf16
 */
#include "tests/parity/full_size.h"

static void vit_b_16_equals_open_clip(void **state)
{
    (void)state;
    check_full_size("ViT-B-16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vit_b_16_equals_open_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
