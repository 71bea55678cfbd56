#ifndef MAGMAX_SRC_BASE_MODULE_H
#define MAGMAX_SRC_BASE_MODULE_H

#include "src/base/status.h"

#include <stdint.h>

/*
 * Modules: code that needs a vendor's libraries is a library of its own, opened
 * at run time when it is first used, so that a program starts where those are
 * missing. A module exports one table of functions. It is built from its own
 * sources and src/base/module_stub.c, which implements status.h by calling the
 * program.
 */

/** What the program provides to the module: there is one failure message. */
typedef struct mm_module_host {
    const char *version; /* of the program, MAGMAX_VERSION */
    mm_status (*fail)(mm_status status, const char *text);
    const char *(*fail_message)(void);
} mm_module_host;

/** The module's one exported function: its table, NULL if it was built for
 * another program or has structs of other sizes. The host is kept. */
typedef const void *mm_module_enter_function(const mm_module_host *host,
                                             int64_t table_bytes);
#define MM_MODULE_ENTER "mm_module_enter"

/** Defined by each module. */
extern const void *const mm_module_table;
extern const int64_t mm_module_table_bytes;

typedef struct mm_module {
    const char *file;         /* name of the library                        */
    const char *variable;     /* environment's, may name another file       */
    int64_t table_bytes;      /* size of what is shared; both must agree    */
    mm_status (*probe)(void); /* is what it needs installed? Called before
                                loaded, unless the environment names it;
                                may be NULL */
} mm_module;

/**
 * Open a module: the file that the environment names, else ../lib/magmax/
 * seen from the program's folder. Opening it again gives the same table.
 *
 * Memory   *table stays for as long as the program runs.
 * Ranks    Local.
 * Timing   Blocking; milliseconds where `probe` fails.
 * Errors   MM_E_DEVICE saying what is missing.
 */
mm_status mm_module_open(const mm_module *module, const void **table);

#endif
