#ifndef MAGMAX_IO_PYTHON_PICKLE_MACHINE_H
#define MAGMAX_IO_PYTHON_PICKLE_MACHINE_H

#include "io/python/pickle.h"

/**
 * The machine that a pickle is a program for: its values, stack, marks, memo
 * and input. For pickle.c, which has the opcodes.
 */

struct mm_pickle {
    struct mm_pickle_block *blocks; /* of values */
    const mm_pickle_value *root;
};

typedef struct mm_pickle_list {
    mm_pickle_value **items;
    int64_t n, capacity;
} mm_pickle_list;

typedef struct mm_pickle_machine {
    mm_pickle *pickle; /* owns the values */
    const char *const *callables;
    const char *start, *at, *end;
    const char *opcode; /* where the current one is, for messages */
    int64_t n_values;
    mm_pickle_list stack, memo;
    int64_t *marks; /* sizes of the stack */
    int64_t n_marks, marks_capacity;
} mm_pickle_machine;

/** Start on bytes; end releases all but the values. */
mm_status mm_pickle_machine_begin(mm_pickle_machine *m, const void *data,
                                  int64_t n_bytes);
void mm_pickle_machine_end(mm_pickle_machine *m);

/** MM_E_FORMAT with the place. */
mm_status mm_pickle_fail(const mm_pickle_machine *m, const char *what);

/** A value of its own, on the stack only where it is pushed. */
mm_status mm_pickle_add_value(mm_pickle_machine *m, mm_pickle_kind kind,
                              mm_pickle_value **value);
mm_status mm_pickle_push(mm_pickle_machine *m, mm_pickle_value *value);
mm_status mm_pickle_push_new(mm_pickle_machine *m, mm_pickle_kind kind,
                             mm_pickle_value **value);

/** From the stack above the innermost mark: the last value; the last n, items
 * valid until the next push; or all of them, and the mark. */
mm_status mm_pickle_top(const mm_pickle_machine *m, mm_pickle_value **value);
mm_status mm_pickle_pop(mm_pickle_machine *m, mm_pickle_value **value);
mm_status mm_pickle_pop_n(mm_pickle_machine *m, int64_t n,
                          mm_pickle_value ***items);
mm_status mm_pickle_pop_mark(mm_pickle_machine *m, mm_pickle_value ***items,
                             int64_t *n);
mm_status mm_pickle_mark(mm_pickle_machine *m);

mm_status mm_pickle_put(mm_pickle_machine *m, uint64_t key,
                        mm_pickle_value *value);
mm_status mm_pickle_find(const mm_pickle_machine *m, uint64_t key,
                         mm_pickle_value **value);

/** Append to a value's items or pairs. */
mm_status mm_pickle_append(const mm_pickle_machine *m,
                           const mm_pickle_value ***array, int32_t *n,
                           int64_t n_more, mm_pickle_value *const *more);

/** From the input: a little-endian number of up to 8 bytes; a text behind its
 * length; a text up to a line's end. */
mm_status mm_pickle_take_number(mm_pickle_machine *m, int n_bytes,
                                uint64_t *number);
mm_status mm_pickle_take_text(mm_pickle_machine *m, int length_bytes,
                              mm_pickle_text *text);
mm_status mm_pickle_take_line(mm_pickle_machine *m, mm_pickle_text *text);

#endif
