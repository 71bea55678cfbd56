#include "kernels/cuda/cuda.h"
#include "kernels/module.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The module's entry, and src/base/status.h carried out by the program that
 * opened it.
 */

static const mm_module_host *host;

__attribute__((visibility("default"))) const mm_backend *
mm_module_open(const mm_module_host *from);

const mm_backend *mm_module_open(const mm_module_host *from)
{
    if (strcmp(from->version, MAGMAX_VERSION) != 0 ||
        from->ops_bytes != (int64_t)sizeof(mm_ops) ||
        from->struct_bytes != (int64_t)sizeof(mm_backend))
        return NULL;
    host = from;
    return &mm_backend_cuda;
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
