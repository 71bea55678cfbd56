#ifndef MAGMAX_SRC_BASE_STATUS_H
#define MAGMAX_SRC_BASE_STATUS_H

#include <stdarg.h>

/**
 * What a fallible function returns. The text that goes with a failure is kept
 * for the calling thread until the next failure, as errno is, so that a status
 * stays one word and a message can say which file, tensor or option it was.
 */
typedef enum mm_status {
    MM_OK = 0,
    MM_E_ARG,    /* an invalid option or argument                   */
    MM_E_IO,     /* the operating system reported an error          */
    MM_E_FORMAT, /* a file's content is not what it should be       */
    MM_E_VALUE,  /* NaN, infinity, or a number out of range in data */
    MM_E_MEMORY, /* not enough memory                               */
    MM_E_DEVICE, /* a compute library or device failed              */
    MM_E_COMM    /* the transport between ranks is gone             */
} mm_status;

/**
 * Record a failure: one line, no final newline or stop, saying what was wrong,
 * where, and what to do.
 *
 * Memory   The text is copied.
 * Ranks    Local.
 * Timing   Blocking.
 * Errors   Returns `status`, so that a function can `return mm_fail(...)`.
 */
mm_status mm_fail(mm_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** As mm_fail, with MM_E_IO and ": " plus strerror(errno) appended. */
mm_status mm_fail_errno(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/** Put "text: " before the recorded message; returns `status`. */
mm_status mm_fail_within(mm_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** The calling thread's last recorded message; never NULL. */
const char *mm_fail_message(void);

/** Leave the function with the callee's status unless it is MM_OK. */
#define MM_TRY(call)                       \
    do {                                   \
        mm_status mm_try_status_ = (call); \
        if (mm_try_status_ != MM_OK)       \
            return mm_try_status_;         \
    } while (0)

/** As MM_TRY where something is owned: set `st` and go to `label`. */
#define MM_TRY_GOTO(st, label, call) \
    do {                             \
        (st) = (call);               \
        if ((st) != MM_OK)           \
            goto label;              \
    } while (0)

/** Our own bugs, never input: prints the place and aborts. */
#define MM_ASSERT(condition) \
    ((condition) ? (void)0 : mm_assert_failed(#condition, __FILE__, __LINE__))

void mm_assert_failed(const char *condition, const char *file, int line)
    __attribute__((noreturn));

#if defined __clang_analyzer__ && !defined MM_DEFINES_FAIL
/* It sees one source at a time: what records a failure returns it. */
#define mm_fail(status, ...) ((mm_fail)(status, __VA_ARGS__), (status))
#define mm_fail_errno(...) ((mm_fail_errno)(__VA_ARGS__), MM_E_IO)
#define mm_fail_within(status, ...) \
    ((mm_fail_within)(status, __VA_ARGS__), (status))
#endif

#endif
