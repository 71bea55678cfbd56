/* Lines and progress on stderr, from rank 0 alone. */
#include "src/base/log.h"

#include "src/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

/** stderr while it goes to a file. */
typedef struct capture {
    FILE *file;
    int kept;
    char text[8192];
} capture;

static void begin(capture *c)
{
    c->file = tmpfile();
    assert_non_null(c->file);
    fflush(stderr);
    c->kept = dup(STDERR_FILENO);
    dup2(fileno(c->file), STDERR_FILENO);
}

static const char *end(capture *c)
{
    fflush(stderr);
    dup2(c->kept, STDERR_FILENO);
    close(c->kept);
    rewind(c->file);
    c->text[fread(c->text, 1, sizeof c->text - 1, c->file)] = '\0';
    fclose(c->file);
    return c->text;
}

/** Everything a log can print, once. */
static void print_all(mm_log *log)
{
    mm_log_line(log, "%d images", 3);
    mm_log_warn(log, "only %s", "one core");
    mm_log_error(log, "100% wrong");
}

static void lines_warnings_and_errors_have_their_form(void **state)
{
    (void)state;
    capture c;
    mm_log *log = mm_log_create("magmax_try", 0, false);
    begin(&c);
    print_all(log);
    assert_string_equal(end(&c), "3 images\n"
                                 "magmax_try: warning: only one core\n"
                                 "magmax_try: 100% wrong\n");
    mm_log_destroy(&log);
    assert_null(log);
}

static void other_ranks_print_nothing(void **state)
{
    (void)state;
    capture c;
    mm_log *log = mm_log_create("magmax_try", 1, true);
    begin(&c);
    print_all(log);
    mm_progress_begin(log, "training", "images", 10);
    mm_progress_update(log, 10, NULL);
    mm_progress_end(log);
    assert_string_equal(end(&c), "");
    mm_log_destroy(&log);
}

static void without_a_log_nothing_is_printed(void **state)
{
    (void)state;
    capture c;
    begin(&c);
    print_all(NULL);
    mm_progress_begin(NULL, "training", "images", 10);
    mm_progress_update(NULL, 10, NULL);
    mm_progress_end(NULL);
    assert_string_equal(end(&c), "");
}

static void a_long_line_is_cut_and_ends(void **state)
{
    (void)state;
    static char text[5000];
    capture c;
    memset(text, 'x', sizeof text - 1);
    mm_log *log = mm_log_create("magmax_try", 0, false);
    begin(&c);
    mm_log_error(log, text);
    mm_log_line(log, "next");
    const char *printed = end(&c);
    size_t length = strcspn(printed, "\n");
    assert_true(length > 2000 && length < sizeof text);
    assert_string_equal(printed + length, "\nnext\n");
    mm_log_destroy(&log);
}

static void progress_ends_with_a_line_that_stays(void **state)
{
    (void)state;
    capture c;
    mm_log *log = mm_log_create("magmax_try", 0, false);
    begin(&c);
    mm_progress_begin(log, "training", "images", 10);
    mm_progress_update(log, 4, "loss 1");
    mm_progress_update(log, 10, NULL);
    mm_progress_end(log);
    const char *printed = end(&c);
    int minutes, seconds, n_chars = 0;
    assert_int_equal(sscanf(printed, "training: 10 images in %dm%2ds (%n",
                            &minutes, &seconds, &n_chars),
                     2);
    assert_true(n_chars > 0);
    assert_string_equal(strchr(printed, '\n'), "\n");
    mm_log_destroy(&log);
}

static void a_line_erases_the_bar_of_a_terminal(void **state)
{
    (void)state;
    capture c;
    mm_log *log = mm_log_create("magmax_try", 0, true);
    begin(&c);
    mm_progress_begin(log, "training", "images", 8);
    usleep(150000); /* the bar appears after a tenth of a second */
    mm_progress_update(log, 4, "loss 1.5");
    mm_log_line(log, "a line");
    const char *printed = end(&c);
    assert_non_null(strstr(printed, "training [##########..........] 4/8"));
    assert_non_null(strstr(printed, "  loss 1.5\r\033[Ka line\n"));
    mm_log_destroy(&log);
}

static void an_empty_task_has_progress_too(void **state)
{
    (void)state;
    capture c;
    mm_log *log = mm_log_create("magmax_try", 0, true);
    begin(&c);
    mm_progress_begin(log, "reading", "images", 0);
    usleep(150000);
    mm_progress_update(log, 0, NULL);
    mm_progress_end(log);
    assert_non_null(strstr(end(&c), "reading [....................] 0/0"));
    mm_log_destroy(&log);
}

static void the_clock_never_goes_back(void **state)
{
    (void)state;
    double last = mm_clock_s();
    for (int i = 0; i < 1000; i++) {
        double now = mm_clock_s();
        assert_true(now >= last);
        last = now;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_warnings_and_errors_have_their_form),
        cmocka_unit_test(other_ranks_print_nothing),
        cmocka_unit_test(without_a_log_nothing_is_printed),
        cmocka_unit_test(a_long_line_is_cut_and_ends),
        cmocka_unit_test(progress_ends_with_a_line_that_stays),
        cmocka_unit_test(a_line_erases_the_bar_of_a_terminal),
        cmocka_unit_test(an_empty_task_has_progress_too),
        cmocka_unit_test(the_clock_never_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
