/* Preloaded (LD_PRELOAD), it makes opening a file take as long as a test wants,
 * as on a slow file system: whoever opens one whose path ends with HELD_FILE
 * waits while there is a file HELD_WHILE. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), n_end = strlen(end);
    return n >= n_end && strcmp(path + n - n_end, end) == 0;
}

static void wait_while_held(const char *path)
{
    static const struct timespec pause = {.tv_nsec = 10000000};
    const char *file = getenv("HELD_FILE"), *marker = getenv("HELD_WHILE");
    if (!file || !marker || !ends_with(path, file))
        return;
    while (access(marker, F_OK) == 0)
        nanosleep(&pause, NULL);
}

typedef int open_function(const char *path, int flags, ...);

static int open_by(const char *name, const char *path, int flags, mode_t mode)
{
    open_function *next;
    *(void **)&next = dlsym(RTLD_NEXT, name);
    wait_while_held(path);
    return next(path, flags, mode);
}

/* The mode is there where a file may be made; else it is not looked at. */
#define OPEN(name)                                \
    int name(const char *path, int flags, ...)    \
    {                                             \
        va_list more;                             \
        mode_t mode = 0;                          \
        va_start(more, flags);                    \
        if (flags & (O_CREAT | O_TMPFILE))        \
            mode = va_arg(more, mode_t);          \
        va_end(more);                             \
        return open_by(#name, path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
