/* Text of any bytes as UTF-8: the form, that it is UTF-8, and that it can be
 * turned back. */
#include "src/base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_stored(const char *text, const char *expected)
{
    char *stored = mm_utf8_escape(text);
    assert_non_null(stored);
    assert_string_equal(stored, expected);
    free(stored);
}

static void utf8_is_stored_as_it_stands(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "photos/cat.jpg",
        "caf\xc3\xa9",
        "\xe7\x8c\xab \xf0\x9f\x90\x88",
        "C:\\xray\\x5c\\x7F\\x\\x5",
        "a\\",
        "\x7f\x01\n",
        "\xef\xbf\xbd\xee\x80\x80\xf4\x8f\xbf\xbf",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_true(mm_utf8_is_valid(texts[i]));
        assert_stored(texts[i], texts[i]);
    }
}

static void other_bytes_are_escaped_one_by_one(void **state)
{
    (void)state;
    assert_stored("caf\xe9.h5", "caf\\xE9.h5");
    assert_stored("\xff\xfe", "\\xFF\\xFE");
    assert_stored("\xc3\xc3\xa9\xa9", "\\xC3\xc3\xa9\\xA9");
    /* Cut off, overlong, a surrogate, beyond the last character. */
    assert_stored("\xe7\x8c", "\\xE7\\x8C");
    assert_stored("\xc0\xaf\xe0\x80\xaf", "\\xC0\\xAF\\xE0\\x80\\xAF");
    assert_stored("\xed\xa0\x80", "\\xED\\xA0\\x80");
    assert_stored("\xf4\x90\x80\x80", "\\xF4\\x90\\x80\\x80");
}

static void what_looks_like_an_escape_is_escaped(void **state)
{
    (void)state;
    assert_stored("caf\\xE9", "caf\\x5CxE9");
    assert_stored("\\x5CxE9", "\\x5Cx5CxE9");
    assert_stored("\\\\xE9", "\\\\x5CxE9");
    assert_stored("\\\xe9", "\\\\xE9");
}

static void assert_comes_back(const char *text)
{
    char *stored = mm_utf8_escape(text);
    assert_non_null(stored);
    assert_true(mm_utf8_is_valid(stored));
    json_t *value = mm_utf8_json(text);
    assert_string_equal(json_string_value(value), stored);
    json_decref(value);
    assert_int_equal(mm_utf8_unescape(stored), MM_OK);
    assert_string_equal(stored, text);
    free(stored);
}

/* Every text of up to five of these, which make characters, parts of characters
 * and escapes. */
static void every_text_comes_back(void **state)
{
    (void)state;
    static const char bytes[] = "\\x5CE9\xc3\xa9";
    enum { N = sizeof bytes - 1, MOST = 5 };
    char text[MOST + 1] = "";
    int place[MOST] = {0};
    for (int length = 0; length <= MOST; length++) {
        int n_texts = 1;
        for (int i = 0; i < length; i++)
            n_texts *= N;
        for (int t = 0; t < n_texts; t++) {
            for (int i = 0, rest = t; i < length; i++, rest /= N)
                place[i] = rest % N;
            for (int i = 0; i < length; i++)
                text[i] = bytes[place[i]];
            text[length] = '\0';
            assert_comes_back(text);
        }
    }
}

/* Lead bytes, and the least and greatest bytes that may follow some of them. */
static void what_is_valid_agrees_with_jansson(void **state)
{
    (void)state;
    static const unsigned char next[] = {0,    'a',  0x7f, 0x80, 0x8f, 0x90,
                                         0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    enum { N = sizeof next };
    for (int first = 1; first < 256; first++)
        for (int i = 0; i < N * N * N; i++) {
            const char text[] = {(char)first, (char)next[i % N],
                                 (char)next[i / N % N], (char)next[i / N / N],
                                 '\0'};
            json_t *value = json_string(text);
            assert_int_equal(mm_utf8_is_valid(text), value != NULL);
            json_decref(value);
        }
}

static void assert_left_alone(const char *text)
{
    char copy[32];
    strcpy(copy, text);
    assert_int_equal(mm_utf8_unescape(copy), MM_OK);
    assert_string_equal(copy, text);
}

/* What other programs, or earlier versions, wrote. */
static void what_is_nothing_stored_is_left_alone(void **state)
{
    (void)state;
    assert_left_alone("caf\xe9");
    assert_left_alone("caf\xe9 \\xE9");
    assert_left_alone("\\xC3\\xA9"); /* would be a character */
    assert_left_alone("\\x5C");      /* needs no escape */
    assert_left_alone("\\xe9 \\x41 \\x5c");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_is_stored_as_it_stands),
        cmocka_unit_test(other_bytes_are_escaped_one_by_one),
        cmocka_unit_test(what_looks_like_an_escape_is_escaped),
        cmocka_unit_test(every_text_comes_back),
        cmocka_unit_test(what_is_valid_agrees_with_jansson),
        cmocka_unit_test(what_is_nothing_stored_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
