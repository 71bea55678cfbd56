/* Loading the CUDA backend's module, after a look for the NVIDIA driver. */

#include "kernels/load_cuda.h"
#include "src/base/module.h"

#include <dlfcn.h>
#include <string.h>

/* The module brings libraries of hundreds of megabytes: look for the driver
 * before loading them. */
static mm_status find_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver) {
        dlclose(driver);
        return MM_OK;
    }
    const char *why = dlerror();
    if (strstr(why, "No such file"))
        return mm_fail(MM_E_DEVICE, "no NVIDIA driver");
    return mm_fail(MM_E_DEVICE, "the NVIDIA driver cannot be loaded: %s", why);
}

mm_status mm_module_open_cuda(const mm_backend **backend)
{
    static const mm_module cuda = {
        .file = "libmagmax_cuda.so",
        .variable = "MAGMAX_CUDA_MODULE",
        .table_bytes = MM_CUDA_TABLE_BYTES,
        .probe = find_driver,
    };
    const void *table = NULL;
    mm_status st = mm_module_open(&cuda, &table);
    *backend = table;
    return st;
}
