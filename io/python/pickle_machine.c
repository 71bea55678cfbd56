/* The state of a pickle that is being read: values, stack, marks, memo and
 * input, with limits for all of them. */

#include "io/python/pickle_machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 1 << 22, MAX_STACK = 1 << 20, BLOCK_VALUES = 1024 };

typedef struct mm_pickle_block {
    struct mm_pickle_block *next;
    int n_used;
    mm_pickle_value values[BLOCK_VALUES];
} block;

static mm_status no_memory(void)
{
    return mm_fail(MM_E_MEMORY, "no memory for a pickle");
}

void mm_pickle_machine_end(mm_pickle_machine *m)
{
    free(m->stack.items);
    free(m->memo.items);
    free(m->marks);
}

void mm_pickle_destroy(mm_pickle **pickle)
{
    if (!*pickle)
        return;
    for (block *b = (*pickle)->blocks, *next; b; b = next) {
        next = b->next;
        for (int i = 0; i < b->n_used; i++) {
            /* Most have neither. */
            if (b->values[i].n_items > 0)
                free(b->values[i].items);
            if (b->values[i].n_pairs > 0)
                free(b->values[i].pairs);
        }
        free(b);
    }
    free(*pickle);
    *pickle = NULL;
}

const mm_pickle_value *mm_pickle_root(const mm_pickle *pickle)
{
    return pickle->root;
}

mm_status mm_pickle_fail(const mm_pickle_machine *m, const char *what)
{
    return mm_fail(MM_E_FORMAT, "pickle: byte %lld: %s",
                   (long long)(m->opcode - m->start), what);
}

static mm_status reserve(mm_pickle_list *l, int64_t n)
{
    if (n <= l->capacity)
        return MM_OK;
    int64_t capacity = n < 16 ? 16 : n + n / 2;
    mm_pickle_value **grown =
        realloc(l->items, (size_t)capacity * sizeof *grown);
    if (!grown)
        return no_memory();
    l->items = grown;
    l->capacity = capacity;
    return MM_OK;
}

mm_status mm_pickle_machine_begin(mm_pickle_machine *m, const void *data,
                                  int64_t n_bytes)
{
    *m = (mm_pickle_machine){.start = data, .at = data, .opcode = data};
    m->end = m->start + n_bytes;
    m->pickle = calloc(1, sizeof *m->pickle);
    return m->pickle ? reserve(&m->stack, 1) : no_memory();
}

mm_status mm_pickle_add_value(mm_pickle_machine *m, mm_pickle_kind kind,
                              mm_pickle_value **value)
{
    block *b = m->pickle->blocks;
    if (m->n_values == MAX_VALUES)
        return mm_pickle_fail(m, "more values than any model has");
    m->n_values++;
    if (!b || b->n_used == BLOCK_VALUES) {
        b = malloc(sizeof *b);
        if (!b)
            return no_memory();
        b->next = m->pickle->blocks;
        b->n_used = 0;
        m->pickle->blocks = b;
    }
    *value = &b->values[b->n_used++];
    **value = (mm_pickle_value){.kind = kind};
    return MM_OK;
}

mm_status mm_pickle_push(mm_pickle_machine *m, mm_pickle_value *value)
{
    if (m->stack.n == MAX_STACK)
        return mm_pickle_fail(m, "more values on the stack than any model has");
    MM_TRY(reserve(&m->stack, m->stack.n + 1));
    m->stack.items[m->stack.n++] = value;
    return MM_OK;
}

mm_status mm_pickle_push_new(mm_pickle_machine *m, mm_pickle_kind kind,
                             mm_pickle_value **value)
{
    MM_TRY(mm_pickle_add_value(m, kind, value));
    return mm_pickle_push(m, *value);
}

mm_status mm_pickle_pop_n(mm_pickle_machine *m, int64_t n,
                          mm_pickle_value ***items)
{
    int64_t mark = m->n_marks ? m->marks[m->n_marks - 1] : 0;
    if (m->stack.n - mark < n)
        return mm_pickle_fail(m, "the stack is empty");
    m->stack.n -= n;
    *items = m->stack.items + m->stack.n;
    return MM_OK;
}

mm_status mm_pickle_pop(mm_pickle_machine *m, mm_pickle_value **value)
{
    mm_pickle_value **items = NULL;
    MM_TRY(mm_pickle_pop_n(m, 1, &items));
    *value = items[0];
    return MM_OK;
}

mm_status mm_pickle_top(const mm_pickle_machine *m, mm_pickle_value **value)
{
    mm_pickle_machine copy = *m;
    return mm_pickle_pop(&copy, value);
}

mm_status mm_pickle_mark(mm_pickle_machine *m)
{
    if (m->n_marks == MAX_STACK)
        return mm_pickle_fail(m, "nested deeper than any model is");
    if (m->n_marks == m->marks_capacity) {
        int64_t capacity = m->n_marks ? 2 * m->n_marks : 16;
        int64_t *grown = realloc(m->marks, (size_t)capacity * sizeof *grown);
        if (!grown)
            return no_memory();
        m->marks = grown;
        m->marks_capacity = capacity;
    }
    m->marks[m->n_marks++] = m->stack.n;
    return MM_OK;
}

mm_status mm_pickle_pop_mark(mm_pickle_machine *m, mm_pickle_value ***items,
                             int64_t *n)
{
    if (m->n_marks == 0)
        return mm_pickle_fail(m, "no mark is set");
    *n = m->stack.n - m->marks[m->n_marks - 1];
    MM_TRY(mm_pickle_pop_n(m, *n, items));
    m->n_marks--;
    return MM_OK;
}

mm_status mm_pickle_put(mm_pickle_machine *m, uint64_t key,
                        mm_pickle_value *value)
{
    if (key >= MAX_VALUES)
        return mm_pickle_fail(m, "a memo number that is too large");
    int64_t n = (int64_t)key + 1;
    MM_TRY(reserve(&m->memo, n));
    for (; m->memo.n < n; m->memo.n++)
        m->memo.items[m->memo.n] = NULL;
    m->memo.items[key] = value;
    return MM_OK;
}

mm_status mm_pickle_find(const mm_pickle_machine *m, uint64_t key,
                         mm_pickle_value **value)
{
    if (key >= (uint64_t)m->memo.n || !m->memo.items[key])
        return mm_pickle_fail(m, "the memo holds nothing under this number");
    *value = m->memo.items[key];
    return MM_OK;
}

static int64_t power_of_two_from(int64_t n)
{
    int64_t power = 1;
    while (power < n)
        power *= 2;
    return power;
}

mm_status mm_pickle_append(const mm_pickle_machine *m,
                           const mm_pickle_value ***array, int32_t *n,
                           int64_t n_more, mm_pickle_value *const *more)
{
    /* Grown at powers of two: no capacity field to keep. */
    int64_t total = *n + n_more, room = power_of_two_from(total);
    if (n_more == 0)
        return MM_OK;
    if (total > INT32_MAX / 2)
        return mm_pickle_fail(m, "more values than any model has");
    if (*n == 0 || room > power_of_two_from(*n)) {
        const mm_pickle_value **grown =
            realloc(*array, (size_t)room * sizeof *grown);
        if (!grown)
            return no_memory();
        *array = grown;
    }
    for (int64_t i = 0; i < n_more; i++)
        (*array)[*n + i] = more[i];
    *n = (int32_t)total;
    return MM_OK;
}

static mm_status take(mm_pickle_machine *m, uint64_t n_bytes,
                      const char **bytes)
{
    if (n_bytes > (uint64_t)(m->end - m->at))
        return mm_pickle_fail(m, "the pickle is truncated");
    *bytes = m->at;
    m->at += n_bytes;
    return MM_OK;
}

mm_status mm_pickle_take_number(mm_pickle_machine *m, int n_bytes,
                                uint64_t *number)
{
    const char *bytes = NULL;
    MM_TRY(take(m, (uint64_t)n_bytes, &bytes));
    *number = 0;
    memcpy(number, bytes, (size_t)n_bytes);
    return MM_OK;
}

mm_status mm_pickle_take_text(mm_pickle_machine *m, int length_bytes,
                              mm_pickle_text *text)
{
    uint64_t n_bytes;
    MM_TRY(mm_pickle_take_number(m, length_bytes, &n_bytes));
    MM_TRY(take(m, n_bytes, &text->data));
    text->n_bytes = (int64_t)n_bytes;
    return MM_OK;
}

mm_status mm_pickle_take_line(mm_pickle_machine *m, mm_pickle_text *text)
{
    const char *end = memchr(m->at, '\n', (size_t)(m->end - m->at));
    if (!end)
        return mm_pickle_fail(m, "the pickle is truncated");
    *text = (mm_pickle_text){m->at, end - m->at};
    m->at = end + 1;
    return MM_OK;
}
