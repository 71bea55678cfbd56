#include "kernels/module.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "libmagmax_cuda.so"

static mm_status fail_with(mm_status status, const char *text)
{
    return mm_fail(status, "%s", text);
}

static const mm_module_host host = {
    .version = MAGMAX_VERSION,
    .ops_bytes = sizeof(mm_ops),
    .struct_bytes = sizeof(mm_backend),
    .fail = fail_with,
    .fail_message = mm_fail_message,
};

/** PATH of the program's folder + "/../lib/magmax/" + FILE_NAME. */
static mm_status beside_program(char path[PATH_MAX])
{
    static const char tail[] = "/../lib/magmax/" FILE_NAME;
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    if (n <= 0 || n + (ssize_t)sizeof tail > PATH_MAX)
        return mm_fail(MM_E_DEVICE, "no " FILE_NAME ": the program's own "
                                    "place is unknown");
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    memcpy(slash ? slash : path, tail, sizeof tail);
    return MM_OK;
}

/* The module brings libraries of hundreds of megabytes: look for the driver
 * before loading them. */
static mm_status find_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver)
        return mm_fail(MM_E_DEVICE, "no CUDA driver: %s", dlerror());
    dlclose(driver);
    return MM_OK;
}

mm_status mm_module_open_cuda(const mm_backend **backend)
{
    char path[PATH_MAX];
    const char *named = getenv("MAGMAX_CUDA_MODULE");
    *backend = NULL;
    if (named) {
        snprintf(path, sizeof path, "%s", named);
    } else {
        MM_TRY(beside_program(path));
        if (access(path, R_OK) != 0)
            return mm_fail(MM_E_DEVICE, "no " FILE_NAME " in this build");
        MM_TRY(find_driver());
    }
    /* Stays open; opening it again gives the same handle. */
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module)
        return mm_fail(MM_E_DEVICE, "%s", dlerror());
    mm_module_open_function *open_module = NULL;
    void *symbol = dlsym(module, MM_MODULE_OPEN);
    memcpy(&open_module, &symbol, sizeof symbol);
    if (!open_module)
        return mm_fail(MM_E_DEVICE, "%s: not a module of magmax", path);
    *backend = open_module(&host);
    if (!*backend)
        return mm_fail(MM_E_DEVICE, "%s: built for another version than %s",
                       path, MAGMAX_VERSION);
    return MM_OK;
}
