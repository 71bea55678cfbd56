#ifndef MAGMAX_COMM_CHECK_SAME_H
#define MAGMAX_COMM_CHECK_SAME_H

#include "comm/comm.h"

#include <stddef.h>

#ifndef MAGMAX_CHECK_COLLECTIVES
#define MAGMAX_CHECK_COLLECTIVES 0
#endif

/*
 * Checks of what headers say of collectives: that ranks make the same calls in
 * the same order, with the arguments that have to match. A function whose
 * comment says "Collective" begins with one of
 *
 *     MM_TRY(MM_CHECK_CALL(comm));
 *     MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(path), MM_SAME_INT(n_elems)));
 *
 * Without -DMAGMAX_CHECK_COLLECTIVES=ON they are MM_OK and do nothing. With it
 * ranks compare the calls before making them, on a communicator of its own and
 * with messages of one shape, so that calls of different functions meet as well
 * instead of waiting for each other. A difference is a bug of ours: the job
 * ends with one line that names function, argument and ranks.
 *
 * Paths of files that each rank reads itself are input, which may differ: they
 * are not compared.
 *
 * A function whose callers all compare the same arguments need not do so again.
 */

/** One argument that has to be the same on every rank. */
typedef struct mm_same {
    const char *name;
    enum {
        MM_SAME_IS_INT,
        MM_SAME_IS_REAL,
        MM_SAME_IS_TEXT,
        MM_SAME_IS_BYTES
    } kind;
    int64_t integer;
    double real;
    const void *bytes; /* of a text as well; may be NULL */
    int64_t n_bytes;
} mm_same;

/** Numbers of any integer type, bool among them. */
#define MM_SAME_INT(value)                                                  \
    {                                                                       \
        .name = #value, .kind = MM_SAME_IS_INT, .integer = (int64_t)(value) \
    }
#define MM_SAME_REAL(value)                                              \
    {                                                                    \
        .name = #value, .kind = MM_SAME_IS_REAL, .real = (double)(value) \
    }
/** NULL is a text of its own. */
#define MM_SAME_TEXT(text)                                      \
    {                                                           \
        .name = #text, .kind = MM_SAME_IS_TEXT, .bytes = (text) \
    }
#define MM_SAME_BYTES(data, length)                               \
    {                                                             \
        .name = #data, .kind = MM_SAME_IS_BYTES, .bytes = (data), \
        .n_bytes = (int64_t)(length)                              \
    }

/** Where a call is checked: its function's name, and a place for developers. */
typedef struct mm_same_call {
    const char *function, *file;
    int line;
} mm_same_call;

#define MM_SAME_HERE        \
    (&(const mm_same_call){ \
        .function = __func__, .file = __FILE__, .line = __LINE__})

/** That all ranks have come here; evaluates to a status. */
#define MM_CHECK_CALL(comm)                                \
    (MAGMAX_CHECK_COLLECTIVES                              \
         ? mm_comm_check_same(comm, MM_SAME_HERE, NULL, 0) \
         : MM_OK)

/** And with the same arguments: up to MM_SAME_MOST of MM_SAME_... */
#define MM_CHECK_SAME(comm, ...)                                         \
    (MAGMAX_CHECK_COLLECTIVES                                            \
         ? mm_comm_check_same(                                           \
               comm, MM_SAME_HERE, (const mm_same[]){__VA_ARGS__},       \
               sizeof((const mm_same[]){__VA_ARGS__}) / sizeof(mm_same)) \
         : MM_OK)

enum { MM_SAME_MOST = 20 };

/**
 * What the macros call. Does nothing for one rank, and for a NULL `comm`, with
 * which some functions are for one rank alone.
 *
 * Ranks    Collective; ends the job where `call` or `args` are not the same.
 * Errors   MM_E_COMM: as mm_comm_watch.
 */
mm_status mm_comm_check_same(mm_comm *comm, const mm_same_call *call,
                             const mm_same *args, size_t n_args);

#endif
