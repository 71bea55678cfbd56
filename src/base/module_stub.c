/* A module's side of src/base/module.h: its entry function, and
 * src/base/status.h implemented by the program that loaded it. */

#define MM_DEFINES_FAIL
#include "src/base/module.h"

#include <stdio.h>
#include <string.h>

static const mm_module_host *host;

__attribute__((visibility("default"))) const void *
mm_module_enter(const mm_module_host *from, int64_t table_bytes);

const void *mm_module_enter(const mm_module_host *from, int64_t table_bytes)
{
    if (strcmp(from->version, MAGMAX_VERSION) != 0 ||
        table_bytes != mm_module_table_bytes)
        return NULL;
    host = from;
    return mm_module_table;
}

enum { MESSAGE_BYTES = 2048 };

mm_status mm_fail(mm_status status, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return host->fail(status, text);
}

mm_status mm_fail_within(mm_status status, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mm_fail(status, "%.400s: %.1600s", text, host->fail_message());
}

const char *mm_fail_message(void)
{
    return host->fail_message();
}
