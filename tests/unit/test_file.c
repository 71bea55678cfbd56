/* Texts written and read whole, truncated reads, folders, and the names in
 * messages; each case in an empty folder of its own. */

#include "io/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each case runs in an empty folder of its own. */
static int enter_folder(void **state)
{
    char *folder = strdup("/tmp/magmax-file-XXXXXX");
    *state = folder;
    return !mkdtemp(folder) || chdir(folder) != 0;
}

static int leave_folder(void **state)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    free(*state);
    return chdir("/") != 0 || system(command) != 0;
}

static void text_is_written_read_and_replaced(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(mm_file_write_text("a.txt", "one\n"), MM_OK);
    assert_int_equal(mm_file_write_text("a.txt", "zwei\n"), MM_OK);
    assert_int_equal(mm_file_read_text("a.txt", 5, &text), MM_OK);
    assert_string_equal(text, "zwei\n");
    free(text);
    assert_false(mm_file_exists("a.txt.tmp"));
}

static void long_text_is_read_whole_and_too_long_text_refused(void **state)
{
    (void)state;
    enum { N = 100000 };
    char *text = NULL, *long_text = malloc(N + 1);
    assert_non_null(long_text);
    memset(long_text, 'x', N);
    long_text[N] = '\0';
    assert_int_equal(mm_file_write_text("a.txt", long_text), MM_OK);
    assert_int_equal(mm_file_read_text("a.txt", N, &text), MM_OK);
    assert_string_equal(text, long_text);
    free(text);
    assert_int_equal(mm_file_read_text("a.txt", N - 1, &text), MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), "a.txt"));
    free(long_text);
}

static void empty_text_is_text_and_a_zero_byte_is_not(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(mm_file_write_text("a.txt", ""), MM_OK);
    assert_int_equal(mm_file_read_text("a.txt", 0, &text), MM_OK);
    assert_string_equal(text, "");
    free(text);
    FILE *file = fopen("b.txt", "wb");
    assert_non_null(file);
    fwrite("a\0b", 1, 3, file);
    fclose(file);
    assert_int_equal(mm_file_read_text("b.txt", 9, &text), MM_E_FORMAT);
}

static void failures_name_the_file(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(mm_file_read_text("none", 9, &text), MM_E_IO);
    assert_string_equal(mm_fail_message(),
                        "cannot open none: No such file or directory");
    assert_int_equal(mm_file_write_text("none/a", "x"), MM_E_IO);
    assert_non_null(strstr(mm_fail_message(), "none/a"));
    assert_int_equal(mkdir("folder", 0777), 0);
    assert_int_equal(mm_file_write_text("folder", "x"), MM_E_IO);
    assert_non_null(strstr(mm_fail_message(), "folder"));
    assert_false(mm_file_exists("folder.tmp"));
}

static void reading_past_the_end_says_truncated(void **state)
{
    (void)state;
    char data[8];
    assert_int_equal(mm_file_write_text("a.txt", "0123456789"), MM_OK);
    int fd = open("a.txt", O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(mm_file_read_at(fd, "a.txt", 2, data, 8), MM_OK);
    assert_memory_equal(data, "23456789", 8);
    assert_int_equal(mm_file_read_at(fd, "a.txt", 3, data, 8), MM_E_FORMAT);
    assert_non_null(strstr(mm_fail_message(), "truncated"));
    assert_int_equal(mm_file_write_at(fd, "a.txt", 9, "abc", 3), MM_OK);
    assert_int_equal(mm_file_read_at(fd, "a.txt", 8, data, 4), MM_OK);
    assert_memory_equal(data, "8abc", 4);
    close(fd);
}

static void folders_are_made_with_their_parents(void **state)
{
    (void)state;
    assert_int_equal(mm_file_create_folder("a/b//c/"), MM_OK);
    assert_int_equal(mm_file_create_folder("a/b/c"), MM_OK);
    assert_int_equal(mm_file_create_folder("/tmp"), MM_OK);
    assert_true(mm_file_exists("a/b/c"));
    assert_int_equal(mm_file_write_text("a/file", ""), MM_OK);
    assert_int_equal(mm_file_create_folder("a/file"), MM_E_IO);
    assert_int_equal(mm_file_create_folder("a/file/b"), MM_E_IO);
    assert_non_null(strstr(mm_fail_message(), "a/file"));
}

static void two_names_of_one_file_are_the_same(void **state)
{
    (void)state;
    assert_int_equal(mm_file_write_text("a", "x"), MM_OK);
    assert_int_equal(mm_file_write_text("b", "x"), MM_OK);
    assert_int_equal(symlink("a", "link"), 0);
    assert_true(mm_file_same("a", "./a"));
    assert_true(mm_file_same("a", "link"));
    assert_false(mm_file_same("a", "b"));
    assert_false(mm_file_same("a", "none"));
    assert_true(mm_file_same("none", "none"));
}

int main(void)
{
#define CASE(name) \
    cmocka_unit_test_setup_teardown(name, enter_folder, leave_folder)
    const struct CMUnitTest cases[] = {
        CASE(text_is_written_read_and_replaced),
        CASE(long_text_is_read_whole_and_too_long_text_refused),
        CASE(empty_text_is_text_and_a_zero_byte_is_not),
        CASE(failures_name_the_file),
        CASE(reading_past_the_end_says_truncated),
        CASE(folders_are_made_with_their_parents),
        CASE(two_names_of_one_file_are_the_same),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
