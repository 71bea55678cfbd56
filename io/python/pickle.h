#ifndef MAGMAX_IO_PYTHON_PICKLE_H
#define MAGMAX_IO_PYTHON_PICKLE_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/**
 * Reads Python pickles (protocol 2 to 5) as data. Nothing is imported and
 * nothing is called: a global is its name, and what Python would make by
 * calling one is an object that says what would have been called with what.
 */
typedef enum mm_pickle_kind {
    MM_PICKLE_NONE,
    MM_PICKLE_BOOL,
    MM_PICKLE_INT,
    MM_PICKLE_BIG_INT, /* beyond 64 bits; its value is not kept */
    MM_PICKLE_FLOAT,
    MM_PICKLE_TEXT,  /* str */
    MM_PICKLE_BYTES, /* bytes, bytearray */
    MM_PICKLE_TUPLE,
    MM_PICKLE_LIST,
    MM_PICKLE_SET, /* set, frozenset */
    MM_PICKLE_DICT,
    MM_PICKLE_GLOBAL,     /* a class or function, by name */
    MM_PICKLE_PERSISTENT, /* what the pickle's owner keeps elsewhere */
    MM_PICKLE_OBJECT      /* of any class, or the result of any function */
} mm_pickle_kind;

/** Bytes of the pickle; not terminated. */
typedef struct mm_pickle_text {
    const char *data;
    int64_t n_bytes;
} mm_pickle_text;

/**
 * A value. Values are shared where the pickle shares them, so there may be
 * cycles, and far more paths than values: a walk must bound its depth and its
 * steps.
 */
typedef struct mm_pickle_value mm_pickle_value;
struct mm_pickle_value {
    mm_pickle_kind kind;
    int32_t n_items, n_pairs;
    union {
        int64_t integer; /* BOOL, INT */
        double number;   /* FLOAT */
        mm_pickle_text text;
        struct {
            mm_pickle_text module, name;
        } global;
        const mm_pickle_value *id; /* PERSISTENT */
        struct {
            const mm_pickle_value *callable; /* GLOBAL */
            const mm_pickle_value *args;     /* TUPLE */
            const mm_pickle_value *state;    /* what it was built from */
        } object;
    };
    const mm_pickle_value **items; /* TUPLE, LIST, SET; appended to an OBJECT */
    const mm_pickle_value **pairs; /* [2 n_pairs] keys and values of a DICT;
                                      those set in an OBJECT */
};

typedef struct mm_pickle mm_pickle;

/**
 * Read one pickle.
 *
 * Classes may be instantiated whatever they are called, since instances are
 * only data. Calls of anything else must be of one of `callables`, names such
 * as "collections.OrderedDict", up to NULL.
 *
 * Memory   Gives *pickle, freed by mm_pickle_destroy. Keeps `data`: texts lie
 *          there. At most 64 bytes for each of 2^22 values, and 16 for each
 *          byte of data.
 * Ranks    Local.
 * Errors   MM_E_FORMAT naming the byte and the opcode or the callable;
 *          MM_E_MEMORY. *pickle is NULL then.
 */
mm_status mm_pickle_read(const void *data, int64_t n_bytes,
                         const char *const *callables, mm_pickle **pickle);
void mm_pickle_destroy(mm_pickle **pickle);

const mm_pickle_value *mm_pickle_root(const mm_pickle *pickle);

/** Value of a text key of a DICT or OBJECT; NULL where there is none. */
const mm_pickle_value *mm_pickle_get(const mm_pickle_value *value,
                                     const char *key);

/** Whether a value (or NULL) is the text, or the global of that name. */
bool mm_pickle_is_text(const mm_pickle_value *value, const char *text);
bool mm_pickle_is_global(const mm_pickle_value *value, const char *name);

/** "module.name" of a global for messages, cut to fit, without control
 * characters. */
enum { MM_PICKLE_NAME_BYTES = 128 };
void mm_pickle_global_name(const mm_pickle_value *value,
                           char name[MM_PICKLE_NAME_BYTES]);

#endif
