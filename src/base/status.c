/* The failure message of each thread, which goes with a status other than
 * MM_OK. */

#define MM_DEFINES_FAIL
#include "src/base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048 };

/* Per thread, like errno: the one piece of hidden state in the program. */
static _Thread_local char message[MESSAGE_BYTES];

mm_status mm_fail(mm_status status, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof message);
    return status;
}

mm_status mm_fail_errno(const char *format, ...)
{
    int error = errno;
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mm_fail(error == ENOMEM ? MM_E_MEMORY : MM_E_IO, "%.1800s: %s", text,
                   strerror(error));
}

mm_status mm_fail_within(mm_status status, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mm_fail(status, "%.400s: %.1600s", text, message);
}

const char *mm_fail_message(void)
{
    return message;
}

void mm_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "magmax: bug: %s:%d: %s\n", file, line, condition);
    abort();
}
