/* Files of class names and prompts. */
#include "src/data/class_texts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

static char path[] = "/tmp/magmax-texts-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 || close(fd) != 0;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void put(const char *content)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(content, 1, strlen(content), file),
                     strlen(content));
    fclose(file);
}

static void names_are_lines_or_an_array(void **state)
{
    (void)state;
    static const char *const same[] = {"a cat\n[dog]\n",
                                       "a cat\n[dog]",
                                       "a cat\r\n[dog]\r\n",
                                       "[\"a cat\",\n \"[dog]\"]",
                                       " \n[\"a cat\", \"\\u005bdog]\"]",
                                       "\xef\xbb\xbf"
                                       "a cat\r\n[dog]\r\n",
                                       "\xef\xbb\xbf[\"a cat\", \"[dog]\"]"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char **names;
        int64_t n;
        put(same[i]);
        if (mm_class_names_read(path, &names, &n) != MM_OK)
            fail_msg("%s", mm_fail_message());
        assert_int_equal(n, 2);
        assert_string_equal(names[0], "a cat");
        assert_string_equal(names[1], "[dog]");
        free(names);
    }
}

static void blanks_around_a_name_stay(void **state)
{
    (void)state;
    char **names;
    int64_t n;
    put(" cat \n");
    assert_int_equal(mm_class_names_read(path, &names, &n), MM_OK);
    assert_string_equal(names[0], " cat ");
    free(names);
}

typedef mm_status reader(const char *path, char ***texts, int64_t *n);

static void refuse(reader *read, const char *content, const char *fragment)
{
    char **texts = NULL;
    int64_t n;
    put(content);
    assert_int_equal(read(path, &texts, &n), MM_E_FORMAT);
    assert_null(texts);
    if (!strstr(mm_fail_message(), fragment) ||
        !strstr(mm_fail_message(), path))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
}

static void what_cannot_be_meant_fails_with_its_line(void **state)
{
    (void)state;
    refuse(mm_class_names_read, "", "holds no class name");
    refuse(mm_class_names_read, "[]", "holds no class name");
    refuse(mm_class_names_read, "cat\n\ndog", ":2: empty class name");
    refuse(mm_class_names_read, "cat\n\t\r\n", ":2: empty class name");
    refuse(mm_class_names_read, "[\"cat\", null]", "element 2 is not a string");
    refuse(mm_class_names_read, "[\"cat\"\n\"dog\"]", ":2: ");
    refuse(mm_prompts_read, "a {}.\na { }.",
           ":2: the prompt 'a { }.' has no {}");
    refuse(mm_prompts_read, "[\"{}\", \" \"]", ":2: empty prompt");
}

static void a_missing_file_fails(void **state)
{
    (void)state;
    char **texts;
    int64_t n;
    assert_int_equal(mm_prompts_read("/no/such/file", &texts, &n), MM_E_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_lines_or_an_array),
        cmocka_unit_test(blanks_around_a_name_stay),
        cmocka_unit_test(what_cannot_be_meant_fails_with_its_line),
        cmocka_unit_test(a_missing_file_fails),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
