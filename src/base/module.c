/* Finding a module's library, loading it, and checking that it was built for
 * this program. */

#include "src/base/module.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static mm_status fail_with(mm_status status, const char *text)
{
    return mm_fail(status, "%s", text);
}

static const mm_module_host host = {
    .version = MAGMAX_VERSION,
    .fail = fail_with,
    .fail_message = mm_fail_message,
};

/** PATH of the program's folder + "/../lib/magmax/" + file. */
static mm_status beside_program(const char *file, char path[PATH_MAX])
{
    char own[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", own, sizeof own);
    if (n <= 0 || n >= (ssize_t)sizeof own)
        return mm_fail(MM_E_DEVICE, "no %s: the program's own path is unknown",
                       file);
    own[n] = '\0';
    *strrchr(own, '/') = '\0';
    n = snprintf(path, PATH_MAX, "%s/../lib/magmax/%s", own, file);
    if (n >= PATH_MAX || access(path, R_OK) != 0)
        return mm_fail(MM_E_DEVICE, "no %s in this build", file);
    return MM_OK;
}

mm_status mm_module_open(const mm_module *module, const void **table)
{
    char path[PATH_MAX];
    const char *named = getenv(module->variable);
    *table = NULL;
    if (named) {
        snprintf(path, sizeof path, "%s", named);
    } else {
        MM_TRY(beside_program(module->file, path));
        if (module->probe)
            MM_TRY(module->probe());
    }
    /* Stays open; opening it again gives the same handle. */
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return mm_fail(MM_E_DEVICE, "%s", dlerror());
    mm_module_enter_function *enter = NULL;
    void *symbol = dlsym(library, MM_MODULE_ENTER);
    memcpy(&enter, &symbol, sizeof symbol);
    if (!enter)
        return mm_fail(MM_E_DEVICE, "%s: not a module of magmax", path);
    *table = enter(&host, module->table_bytes);
    if (!*table)
        return mm_fail(MM_E_DEVICE, "%s: built for another version than %s",
                       path, MAGMAX_VERSION);
    return MM_OK;
}
