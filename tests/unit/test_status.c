/* Failures and the message that goes with them. */
#include "src/base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

static void a_failure_returns_its_status_and_keeps_its_message(void **state)
{
    (void)state;
    assert_int_equal(mm_fail(MM_E_VALUE, "label %d of %s", 7, "data.npz"),
                     MM_E_VALUE);
    assert_string_equal(mm_fail_message(), "label 7 of data.npz");
}

static void the_next_failure_replaces_the_message(void **state)
{
    (void)state;
    mm_fail(MM_E_ARG, "a long first message");
    mm_fail(MM_E_IO, "short");
    assert_string_equal(mm_fail_message(), "short");
}

static void a_message_can_be_made_of_the_last_one(void **state)
{
    (void)state;
    mm_fail(MM_E_FORMAT, "no magic");
    mm_fail(MM_E_FORMAT, "%s, at byte %d", mm_fail_message(), 0);
    assert_string_equal(mm_fail_message(), "no magic, at byte 0");
}

static void a_place_is_put_before_the_message(void **state)
{
    (void)state;
    mm_status st = mm_fail(MM_E_FORMAT, "no magic");
    st = mm_fail_within(st, "task %d", 3);
    st = mm_fail_within(st, "%s", "merge");
    assert_int_equal(st, MM_E_FORMAT);
    assert_string_equal(mm_fail_message(), "merge: task 3: no magic");
}

static void the_operating_systems_reason_is_appended(void **state)
{
    (void)state;
    errno = ENOENT;
    assert_int_equal(mm_fail_errno("cannot open %s", "x.h5"), MM_E_IO);
    assert_string_equal(mm_fail_message(),
                        "cannot open x.h5: No such file or directory");
    errno = ENOMEM;
    assert_int_equal(mm_fail_errno("cannot map"), MM_E_MEMORY);
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    static char text[10000];
    memset(text, 'x', sizeof text - 1);
    mm_fail(MM_E_ARG, "%s", text);
    size_t length = strlen(mm_fail_message());
    assert_true(length > 1000 && length < sizeof text - 1);
    for (int i = 0; i < 5; i++)
        mm_fail_within(MM_E_ARG, "%s", text);
    assert_true(strlen(mm_fail_message()) < sizeof text - 1);
    errno = EACCES;
    mm_fail_errno("%s", text);
    assert_non_null(strstr(mm_fail_message(), "Permission denied"));
}

static void *fail_elsewhere(void *argument)
{
    (void)argument;
    const char *fresh = mm_fail_message();
    int was_empty = fresh && !fresh[0];
    mm_fail(MM_E_IO, "of another thread");
    return was_empty ? (void *)1 : NULL;
}

static void every_thread_has_its_own_message(void **state)
{
    (void)state;
    mm_fail(MM_E_ARG, "of this thread");
    pthread_t thread;
    void *was_empty = NULL;
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, &was_empty), 0);
    assert_non_null(was_empty);
    assert_string_equal(mm_fail_message(), "of this thread");
}

static mm_status count_tries(mm_status first, mm_status second, int *n_after)
{
    MM_TRY(first);
    ++*n_after;
    mm_status st;
    MM_TRY_GOTO(st, done, second);
    ++*n_after;
done:
    return st;
}

static void try_leaves_at_the_first_failure(void **state)
{
    (void)state;
    int n_after = 0;
    assert_int_equal(count_tries(MM_OK, MM_OK, &n_after), MM_OK);
    assert_int_equal(n_after, 2);
    assert_int_equal(count_tries(MM_E_IO, MM_E_ARG, &n_after), MM_E_IO);
    assert_int_equal(n_after, 2);
    assert_int_equal(count_tries(MM_OK, MM_E_ARG, &n_after), MM_E_ARG);
    assert_int_equal(n_after, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_returns_its_status_and_keeps_its_message),
        cmocka_unit_test(the_next_failure_replaces_the_message),
        cmocka_unit_test(a_message_can_be_made_of_the_last_one),
        cmocka_unit_test(a_place_is_put_before_the_message),
        cmocka_unit_test(the_operating_systems_reason_is_appended),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(every_thread_has_its_own_message),
        cmocka_unit_test(try_leaves_at_the_first_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
