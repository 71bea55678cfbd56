#ifndef MAGMAX_KERNELS_MODULE_H
#define MAGMAX_KERNELS_MODULE_H

#include "kernels/backend.h"

/*
 * A backend in a library of its own, opened when it is first asked for, so that
 * a program starts, and computes on the CPU, where the vendor's libraries are
 * missing. Private to kernels/.
 */

/** What the program lends the module: there is one failure message. */
typedef struct mm_module_host {
    const char *version;  /* of the program, MAGMAX_VERSION         */
    int64_t ops_bytes;    /* sizeof(mm_ops), as the program has it  */
    int64_t struct_bytes; /* sizeof(mm_backend)                     */
    mm_status (*fail)(mm_status status, const char *text);
    const char *(*fail_message)(void);
} mm_module_host;

/** The module's one exported function. NULL if it was built for another
 * program; mm_module_host's members are kept. */
typedef const mm_backend *mm_module_open_function(const mm_module_host *host);
#define MM_MODULE_OPEN "mm_module_open"

/**
 * The backend in libmagmax_cuda.so: the file that the environment's
 * MAGMAX_CUDA_MODULE names, else ../lib/magmax/ seen from the program's folder.
 *
 * Memory   *backend stays for as long as the program runs.
 * Ranks    Local.
 * Timing   Blocking; milliseconds where there is no driver.
 * Errors   MM_E_DEVICE saying what is missing.
 */
mm_status mm_module_open_cuda(const mm_backend **backend);

#endif
