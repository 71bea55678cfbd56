/* Vocabularies: small ones of every format, and what can be wrong. */
#include "src/tokenizer/tokenizer.h"
#include "src/tokenizer/vocabulary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_IDS = MM_N_BYTE_SYMBOLS + 3 + MM_N_SPECIAL_IDS };

static const char merges[] = "#version: 0.2\nc a\nca t</w>\na t</w>\n";

static void assert_says(const char *fragment)
{
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
}

static void assert_refused(const char *text, const char *fragment)
{
    mm_vocabulary v;
    assert_int_equal(mm_vocabulary_parse(text, "v", N_IDS, &v), MM_E_FORMAT);
    assert_says(fragment);
}

static void byte_symbols_are_printed_bytes_and_then_others(void **state)
{
    (void)state;
    bool seen[256] = {false};
    assert_int_equal(mm_vocabulary_byte_symbol('!'), 0);
    assert_int_equal(mm_vocabulary_byte_symbol('a'), 'a' - '!');
    assert_int_equal(mm_vocabulary_byte_symbol(0xa1), '~' - '!' + 1);
    assert_int_equal(mm_vocabulary_byte_symbol(0), 188);
    assert_int_equal(mm_vocabulary_byte_symbol(0xad), 255);
    for (int b = 0; b < 256; b++)
        seen[mm_vocabulary_byte_symbol((uint8_t)b)] = true;
    for (int b = 0; b < 256; b++)
        assert_true(seen[b]);
}

static void merges_are_pairs_of_earlier_symbols(void **state)
{
    (void)state;
    mm_vocabulary v;
    int32_t a = mm_vocabulary_byte_symbol('a');
    int32_t t_end = mm_vocabulary_byte_symbol('t') + MM_N_BYTE_SYMBOLS / 2;
    assert_int_equal(mm_vocabulary_parse(merges, "v", N_IDS, &v), MM_OK);
    assert_int_equal(v.n_pairs, 3);
    assert_int_equal(v.pairs[0][0], mm_vocabulary_byte_symbol('c'));
    assert_int_equal(v.pairs[0][1], a);
    assert_int_equal(v.pairs[1][0], MM_N_BYTE_SYMBOLS);
    assert_int_equal(v.pairs[1][1], t_end);
    assert_int_equal(v.pairs[2][0], a);
    mm_vocabulary_clear(&v);
}

static void only_the_list_that_clip_cuts_may_be_longer(void **state)
{
    (void)state;
    char cut[200];
    mm_vocabulary v;
    snprintf(cut, sizeof cut, "\"bpe_simple_vocab_16e6.txt%s", merges);
    strcat(cut, "q q\nnot even a merge\n");
    assert_int_equal(mm_vocabulary_parse(cut, "v", N_IDS, &v), MM_OK);
    assert_int_equal(v.n_pairs, 3);
    mm_vocabulary_clear(&v);
    assert_refused("#version: 0.2\nc a\nca t</w>\na t</w>\nq q\n",
                   "v holds 4 merges, so 518 ids; expected 3 merges for 517");
}

static void a_short_list_says_expected_and_found(void **state)
{
    (void)state;
    assert_refused("#version: 0.2\nc a\nca t</w>\n",
                   "v holds 2 merges, so 516 ids; expected 3 merges for 517");
    assert_refused("#version: 0.2",
                   "v holds 0 merges, so 514 ids; expected 3 merges for 517");
}

static void a_bad_line_is_named(void **state)
{
    (void)state;
    assert_refused("#version: 0.2\nc a\nca\nx y", "v: line 3: expected two");
    assert_refused("#version: 0.2\nc a\n\nx y", "v: line 3: expected two");
    assert_refused("#version: 0.2\nc a\n x\nx y", "v: line 3: expected two");
    assert_refused("#version: 0.2\nc a\nco t\nx y",
                   "line 3: joins a symbol that no "
                   "earlier one makes: 'co'");
    assert_refused("#version: 0.2\nc a\nc a\nx y",
                   "line 3: makes the same symbol");
}

static void what_has_no_first_line_is_no_vocabulary(void **state)
{
    (void)state;
    assert_refused("", "v is not a vocabulary");
    assert_refused("c a\nca t</w>\na t</w>\n", "v is not a vocabulary");
    assert_refused("{}", "model.vocab and model.merges");
    assert_refused("{\"model\": {\"vocab\": {}, \"merges\": [1, 2, 3]}}",
                   "merge 0: expected");
    assert_refused("{\"model\": {\"vocab\": {}, \"merges\": [\"c a\"]}}",
                   "v holds 1 merges");
    assert_refused("{\"model\": {\"vocab\": {}, \"merges\": "
                   "[[\"c\", \"a\"], [\"a\", \"a\"], [\"a\"]]}}",
                   "merge 2: expected");
    assert_refused("{\"model\": {\"vocab\": {}, \"merges\": "
                   "[[\"c\", \"a\"], [\"a\", \"a\"], [\"b\", \"b\"]]}}",
                   "'!' has no id; expected 0");
}

static void an_impossible_number_of_ids_is_refused(void **state)
{
    (void)state;
    const int64_t impossible[] = {-1, 0, 513, INT64_C(1) << 40};
    mm_vocabulary v;
    for (int i = 0; i < 4; i++)
        assert_int_equal(mm_vocabulary_parse(merges, "v", impossible[i], &v),
                         MM_E_ARG);
}

static void small_vocabularies_encode(void **state)
{
    (void)state;
    mm_tokenizer *tokenizer;
    int32_t ids[6], a_end = mm_vocabulary_byte_symbol('a') + 256;
    assert_int_equal(mm_tokenizer_parse(merges, "v", N_IDS, &tokenizer), MM_OK);
    assert_int_equal(mm_tokenizer_n_ids(tokenizer), N_IDS);
    assert_int_equal(mm_tokenizer_encode(tokenizer, "a CAT", 6, ids), MM_OK);
    const int32_t cat[] = {N_IDS - 2, a_end, 513, N_IDS - 1, 0, 0};
    assert_memory_equal(ids, cat, sizeof cat);
    assert_int_equal(
        mm_tokenizer_encode(tokenizer, "<END_of_text>at a a a", 6, ids), MM_OK);
    const int32_t cut[] = {N_IDS - 2, N_IDS - 1, 514, a_end, a_end, N_IDS - 1};
    assert_memory_equal(ids, cut, sizeof cut);
    assert_int_equal(mm_tokenizer_encode(tokenizer, "a", 2, ids), MM_OK);
    assert_int_equal(ids[1], N_IDS - 1);
    assert_int_equal(mm_tokenizer_encode(tokenizer, "a\xc3", 6, ids),
                     MM_E_VALUE);
    assert_says("byte 1 of it, 0xc3");
    mm_tokenizer_destroy(&tokenizer);
    mm_tokenizer_destroy(&tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_symbols_are_printed_bytes_and_then_others),
        cmocka_unit_test(merges_are_pairs_of_earlier_symbols),
        cmocka_unit_test(only_the_list_that_clip_cuts_may_be_longer),
        cmocka_unit_test(a_short_list_says_expected_and_found),
        cmocka_unit_test(a_bad_line_is_named),
        cmocka_unit_test(what_has_no_first_line_is_no_vocabulary),
        cmocka_unit_test(an_impossible_number_of_ids_is_refused),
        cmocka_unit_test(small_vocabularies_encode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
