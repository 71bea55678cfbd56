/* The opcodes of Python's pickles and the function that executes each of them
 * as data; nothing is imported or called. */

#include "io/python/pickle_machine.h"

#include <stdio.h>
#include <string.h>

enum { HIGHEST_PROTOCOL = 5 };

typedef mm_pickle_machine machine;

static mm_status push_kind(machine *m, int kind)
{
    mm_pickle_value *value;
    return mm_pickle_push_new(m, (mm_pickle_kind)kind, &value);
}

static mm_status push_integer(machine *m, mm_pickle_kind kind, int64_t integer)
{
    mm_pickle_value *value;
    MM_TRY(mm_pickle_push_new(m, kind, &value));
    value->integer = integer;
    return MM_OK;
}

static mm_status push_bool(machine *m, int truth)
{
    return push_integer(m, MM_PICKLE_BOOL, truth);
}

static mm_status push_int(machine *m, int n_bytes)
{
    uint64_t number;
    MM_TRY(mm_pickle_take_number(m, n_bytes, &number));
    /* Of the three sizes, only that of four bytes has a sign. */
    return push_integer(m, MM_PICKLE_INT,
                        n_bytes == 4 ? (int32_t)number : (int64_t)number);
}

/* Two's complement of any length. */
static mm_status push_long(machine *m, int length_bytes)
{
    mm_pickle_text text;
    uint64_t number = 0;
    MM_TRY(mm_pickle_take_text(m, length_bytes, &text));
    if (text.n_bytes > 8)
        return push_integer(m, MM_PICKLE_BIG_INT, 0);
    if (text.n_bytes > 0 && text.data[text.n_bytes - 1] & 0x80)
        number = UINT64_MAX;
    memcpy(&number, text.data, (size_t)text.n_bytes);
    return push_integer(m, MM_PICKLE_INT, (int64_t)number);
}

static mm_status push_float(machine *m, int n_bytes)
{
    uint64_t bits;
    mm_pickle_value *value;
    MM_TRY(mm_pickle_take_number(m, n_bytes, &bits));
    bits = __builtin_bswap64(bits);
    MM_TRY(mm_pickle_push_new(m, MM_PICKLE_FLOAT, &value));
    memcpy(&value->number, &bits, sizeof bits);
    return MM_OK;
}

static mm_status push_run_of_bytes(machine *m, mm_pickle_kind kind,
                                   int length_bytes)
{
    mm_pickle_text text;
    mm_pickle_value *value;
    MM_TRY(mm_pickle_take_text(m, length_bytes, &text));
    MM_TRY(mm_pickle_push_new(m, kind, &value));
    value->text = text;
    return MM_OK;
}

static mm_status push_text(machine *m, int length_bytes)
{
    return push_run_of_bytes(m, MM_PICKLE_TEXT, length_bytes);
}

static mm_status push_bytes(machine *m, int length_bytes)
{
    return push_run_of_bytes(m, MM_PICKLE_BYTES, length_bytes);
}

static mm_status push_items(machine *m, mm_pickle_kind kind, int64_t n,
                            mm_pickle_value *const *items)
{
    mm_pickle_value *value;
    MM_TRY(mm_pickle_add_value(m, kind, &value));
    MM_TRY(mm_pickle_append(m, &value->items, &value->n_items, n, items));
    return mm_pickle_push(m, value);
}

static mm_status push_tuple(machine *m, int n)
{
    mm_pickle_value **items;
    MM_TRY(mm_pickle_pop_n(m, n, &items));
    return push_items(m, MM_PICKLE_TUPLE, n, items);
}

static mm_status push_marked(machine *m, int kind)
{
    mm_pickle_value **items;
    int64_t n;
    MM_TRY(mm_pickle_pop_mark(m, &items, &n));
    return push_items(m, (mm_pickle_kind)kind, n, items);
}

/* To the list, set or dictionary below them. */
static mm_status add(machine *m, mm_pickle_kind kind, int64_t n,
                     mm_pickle_value *const *items)
{
    mm_pickle_value *to;
    MM_TRY(mm_pickle_top(m, &to));
    if (to->kind != kind && to->kind != MM_PICKLE_OBJECT)
        return mm_pickle_fail(m, "items are added to what cannot have them");
    if (kind != MM_PICKLE_DICT)
        return mm_pickle_append(m, &to->items, &to->n_items, n, items);
    if (n % 2 != 0)
        return mm_pickle_fail(m, "a key without a value");
    int32_t n_entries = 2 * to->n_pairs;
    MM_TRY(mm_pickle_append(m, &to->pairs, &n_entries, n, items));
    to->n_pairs = n_entries / 2;
    return MM_OK;
}

static mm_status add_last(machine *m, int kind)
{
    mm_pickle_value **items;
    int64_t n = kind == MM_PICKLE_DICT ? 2 : 1;
    MM_TRY(mm_pickle_pop_n(m, n, &items));
    return add(m, (mm_pickle_kind)kind, n, items);
}

static mm_status add_marked(machine *m, int kind)
{
    mm_pickle_value **items;
    int64_t n;
    MM_TRY(mm_pickle_pop_mark(m, &items, &n));
    return add(m, (mm_pickle_kind)kind, n, items);
}

static mm_status mark(machine *m, int unused)
{
    (void)unused;
    return mm_pickle_mark(m);
}

static mm_status duplicate(machine *m, int unused)
{
    mm_pickle_value *value;
    (void)unused;
    MM_TRY(mm_pickle_top(m, &value));
    return mm_pickle_push(m, value);
}

/* The last value, or a mark that is last; or all up to the mark. */
static mm_status discard(machine *m, int up_to_mark)
{
    mm_pickle_value **items;
    int64_t n;
    if (m->n_marks > 0 && m->marks[m->n_marks - 1] == m->stack.n)
        up_to_mark = true;
    return up_to_mark ? mm_pickle_pop_mark(m, &items, &n)
                      : mm_pickle_pop_n(m, 1, &items);
}

static mm_status put(machine *m, int n_bytes)
{
    mm_pickle_value *value;
    uint64_t key = (uint64_t)m->memo.n; /* MEMOIZE: the next one */
    if (n_bytes > 0)
        MM_TRY(mm_pickle_take_number(m, n_bytes, &key));
    MM_TRY(mm_pickle_top(m, &value));
    return mm_pickle_put(m, key, value);
}

static mm_status get(machine *m, int n_bytes)
{
    mm_pickle_value *value;
    uint64_t key;
    MM_TRY(mm_pickle_take_number(m, n_bytes, &key));
    MM_TRY(mm_pickle_find(m, key, &value));
    return mm_pickle_push(m, value);
}

static mm_status push_global(machine *m, mm_pickle_text module,
                             mm_pickle_text name)
{
    mm_pickle_value *value;
    MM_TRY(mm_pickle_push_new(m, MM_PICKLE_GLOBAL, &value));
    value->global.module = module;
    value->global.name = name;
    return MM_OK;
}

static mm_status global(machine *m, int unused)
{
    mm_pickle_text module, name;
    (void)unused;
    MM_TRY(mm_pickle_take_line(m, &module));
    MM_TRY(mm_pickle_take_line(m, &name));
    return push_global(m, module, name);
}

static mm_status stack_global(machine *m, int unused)
{
    mm_pickle_value *module, *name;
    (void)unused;
    MM_TRY(mm_pickle_pop(m, &name));
    MM_TRY(mm_pickle_pop(m, &module));
    if (module->kind != MM_PICKLE_TEXT || name->kind != MM_PICKLE_TEXT)
        return mm_pickle_fail(m, "a global's name is not a text");
    return push_global(m, module->text, name->text);
}

static mm_status check_callable(const machine *m,
                                const mm_pickle_value *callable)
{
    char name[MM_PICKLE_NAME_BYTES];
    for (int i = 0; m->callables[i]; i++)
        if (mm_pickle_is_global(callable, m->callables[i]))
            return MM_OK;
    mm_pickle_global_name(callable, name);
    return mm_fail(MM_E_FORMAT,
                   "pickle: byte %lld: it calls %s, which is not among the "
                   "functions that only make data; nothing was run",
                   (long long)(m->opcode - m->start), name);
}

/* REDUCE may call anything; NEWOBJ only makes an instance of a class. */
static mm_status make_object(machine *m, int is_call)
{
    mm_pickle_value *callable, *args, *value;
    MM_TRY(mm_pickle_pop(m, &args));
    MM_TRY(mm_pickle_pop(m, &callable));
    if (callable->kind != MM_PICKLE_GLOBAL || args->kind != MM_PICKLE_TUPLE)
        return mm_pickle_fail(m, "an object is made of what has no name");
    if (is_call)
        MM_TRY(check_callable(m, callable));
    MM_TRY(mm_pickle_push_new(m, MM_PICKLE_OBJECT, &value));
    value->object.callable = callable;
    value->object.args = args;
    return MM_OK;
}

/* With arguments by name, which no reader uses. */
static mm_status make_object_ex(machine *m, int unused)
{
    mm_pickle_value *names;
    (void)unused;
    MM_TRY(mm_pickle_pop(m, &names));
    return make_object(m, false);
}

static mm_status build(machine *m, int unused)
{
    mm_pickle_value *state, *value;
    (void)unused;
    MM_TRY(mm_pickle_pop(m, &state));
    MM_TRY(mm_pickle_top(m, &value));
    if (value->kind != MM_PICKLE_OBJECT || value->object.state)
        return mm_pickle_fail(m, "a state for what cannot have one");
    value->object.state = state;
    return MM_OK;
}

static mm_status persistent(machine *m, int unused)
{
    mm_pickle_value *id, *value;
    (void)unused;
    MM_TRY(mm_pickle_pop(m, &id));
    MM_TRY(mm_pickle_push_new(m, MM_PICKLE_PERSISTENT, &value));
    value->id = id;
    return MM_OK;
}

static mm_status protocol(machine *m, int n_bytes)
{
    uint64_t version;
    MM_TRY(mm_pickle_take_number(m, n_bytes, &version));
    if (version > HIGHEST_PROTOCOL)
        return mm_pickle_fail(m, "a protocol newer than 5");
    return MM_OK;
}

/* The length of what follows: only for reading ahead. */
static mm_status frame(machine *m, int n_bytes)
{
    uint64_t length;
    return mm_pickle_take_number(m, n_bytes, &length);
}

/* Python's names. Those without a function are not read. */
static const struct {
    const char *name;
    mm_status (*run)(machine *m, int argument);
    int argument;
} opcodes[256] = {
    [0x80] = {"PROTO", protocol, 1},
    [0x95] = {"FRAME", frame, 8},

    ['N'] = {"NONE", push_kind, MM_PICKLE_NONE},
    [0x88] = {"NEWTRUE", push_bool, true},
    [0x89] = {"NEWFALSE", push_bool, false},
    ['K'] = {"BININT1", push_int, 1},
    ['M'] = {"BININT2", push_int, 2},
    ['J'] = {"BININT", push_int, 4},
    [0x8a] = {"LONG1", push_long, 1},
    [0x8b] = {"LONG4", push_long, 4},
    ['G'] = {"BINFLOAT", push_float, 8},
    [0x8c] = {"SHORT_BINUNICODE", push_text, 1},
    ['X'] = {"BINUNICODE", push_text, 4},
    [0x8d] = {"BINUNICODE8", push_text, 8},
    ['U'] = {"SHORT_BINSTRING", push_text, 1},
    ['T'] = {"BINSTRING", push_text, 4},
    ['C'] = {"SHORT_BINBYTES", push_bytes, 1},
    ['B'] = {"BINBYTES", push_bytes, 4},
    [0x8e] = {"BINBYTES8", push_bytes, 8},
    [0x96] = {"BYTEARRAY8", push_bytes, 8},

    [')'] = {"EMPTY_TUPLE", push_kind, MM_PICKLE_TUPLE},
    [0x85] = {"TUPLE1", push_tuple, 1},
    [0x86] = {"TUPLE2", push_tuple, 2},
    [0x87] = {"TUPLE3", push_tuple, 3},
    ['t'] = {"TUPLE", push_marked, MM_PICKLE_TUPLE},
    [']'] = {"EMPTY_LIST", push_kind, MM_PICKLE_LIST},
    ['a'] = {"APPEND", add_last, MM_PICKLE_LIST},
    ['e'] = {"APPENDS", add_marked, MM_PICKLE_LIST},
    ['}'] = {"EMPTY_DICT", push_kind, MM_PICKLE_DICT},
    ['s'] = {"SETITEM", add_last, MM_PICKLE_DICT},
    ['u'] = {"SETITEMS", add_marked, MM_PICKLE_DICT},
    [0x8f] = {"EMPTY_SET", push_kind, MM_PICKLE_SET},
    [0x90] = {"ADDITEMS", add_marked, MM_PICKLE_SET},
    [0x91] = {"FROZENSET", push_marked, MM_PICKLE_SET},

    ['('] = {"MARK", mark, 0},
    ['0'] = {"POP", discard, false},
    ['1'] = {"POP_MARK", discard, true},
    ['2'] = {"DUP", duplicate, 0},
    ['q'] = {"BINPUT", put, 1},
    ['r'] = {"LONG_BINPUT", put, 4},
    [0x94] = {"MEMOIZE", put, 0},
    ['h'] = {"BINGET", get, 1},
    ['j'] = {"LONG_BINGET", get, 4},

    ['c'] = {"GLOBAL", global, 0},
    [0x93] = {"STACK_GLOBAL", stack_global, 0},
    ['R'] = {"REDUCE", make_object, true},
    [0x81] = {"NEWOBJ", make_object, false},
    [0x92] = {"NEWOBJ_EX", make_object_ex, 0},
    ['b'] = {"BUILD", build, 0},
    ['Q'] = {"BINPERSID", persistent, 0},

    ['F'] = {"FLOAT", NULL, 0},
    ['I'] = {"INT", NULL, 0},
    ['L'] = {"LONG", NULL, 0},
    ['P'] = {"PERSID", NULL, 0},
    ['S'] = {"STRING", NULL, 0},
    ['V'] = {"UNICODE", NULL, 0},
    ['d'] = {"DICT", NULL, 0},
    ['g'] = {"GET", NULL, 0},
    ['i'] = {"INST", NULL, 0},
    ['l'] = {"LIST", NULL, 0},
    ['o'] = {"OBJ", NULL, 0},
    ['p'] = {"PUT", NULL, 0},
    [0x82] = {"EXT1", NULL, 0},
    [0x83] = {"EXT2", NULL, 0},
    [0x84] = {"EXT4", NULL, 0},
    [0x97] = {"NEXT_BUFFER", NULL, 0},
    [0x98] = {"READONLY_BUFFER", NULL, 0},
};

/* Up to STOP, which leaves the root. */
static mm_status run(machine *m)
{
    mm_pickle_value *root;
    uint64_t opcode;
    for (;;) {
        m->opcode = m->at;
        MM_TRY(mm_pickle_take_number(m, 1, &opcode));
        if (opcode == '.')
            break;
        if (!opcodes[opcode].run)
            return mm_fail(MM_E_FORMAT,
                           "pickle: byte %lld: the opcode 0x%02x (%s) is not "
                           "one that torch.save writes",
                           (long long)(m->opcode - m->start), (int)opcode,
                           opcodes[opcode].name ? opcodes[opcode].name
                                                : "unknown");
        MM_TRY(opcodes[opcode].run(m, opcodes[opcode].argument));
    }
    MM_TRY(mm_pickle_pop(m, &root));
    m->pickle->root = root;
    return MM_OK;
}

mm_status mm_pickle_read(const void *data, int64_t n_bytes,
                         const char *const *callables, mm_pickle **pickle)
{
    machine m;
    mm_status st = mm_pickle_machine_begin(&m, data, n_bytes);
    m.callables = callables;
    if (st == MM_OK)
        st = run(&m);
    if (st != MM_OK)
        mm_pickle_destroy(&m.pickle);
    mm_pickle_machine_end(&m);
    *pickle = m.pickle;
    return st;
}
