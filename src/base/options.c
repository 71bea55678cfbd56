/* Parsing a command line by a table of options; --help, and the comparison with
 * the options that an earlier run recorded, come from the same table. */

#include "src/base/options.h"

#include "src/base/names.h"
#include "src/base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct value {
    const char *text; /* as typed or the default; NULL: not set */
    bool given;
    int64_t integer;
    double real;
} value;

struct mm_options {
    const mm_option_table *table;
    value *values; /* one per row */
    char **operands;
    int n_operands;
};

static bool same_name(const char *typed, size_t length, const char *name)
{
    if (strlen(name) != length)
        return false;
    for (size_t i = 0; i < length; i++)
        if ((typed[i] == '_' ? '-' : typed[i]) != name[i])
            return false;
    return true;
}

static int row_of(const mm_option_table *table, const char *name)
{
    for (int i = 0; i < table->n_rows; i++)
        if (strcmp(table->rows[i].name, name) == 0)
            return i;
    return -1;
}

static mm_status fail_unknown(const mm_option_table *table, const char *typed)
{
    enum { MOST_ROWS = 64 };
    char spelled[MOST_ROWS][48];
    const char *names[MOST_ROWS];
    int n = table->n_rows < MOST_ROWS ? table->n_rows : MOST_ROWS;
    for (int i = 0; i < n; i++) {
        snprintf(spelled[i], sizeof spelled[i], "--%s", table->rows[i].name);
        names[i] = spelled[i];
    }
    return mm_names_unknown("option", typed, names, n);
}

/** Which row an argument that starts with '-' names; `*inline_value` is what
 * follows '='. */
static mm_status find_row(const mm_option_table *table, const char *argument,
                          int *row, const char **inline_value)
{
    *inline_value = NULL;
    for (int i = 0; i < table->n_rows; i++) {
        const mm_option *option = &table->rows[i];
        if (argument[1] != '-') {
            if (option->letter && argument[1] == option->letter) {
                *row = i;
                *inline_value = argument[2] ? argument + 2 : NULL;
                return MM_OK;
            }
            continue;
        }
        const char *name = argument + 2;
        size_t length = strcspn(name, "=");
        if (same_name(name, length, option->name)) {
            *row = i;
            *inline_value = name[length] ? name + length + 1 : NULL;
            return MM_OK;
        }
    }
    return fail_unknown(table, argument);
}

static mm_status read_number(const mm_option *option, value *v)
{
    char *end;
    errno = 0;
    if (option->kind == MM_OPTION_INT) {
        v->integer = strtoll(v->text, &end, 10);
        v->real = (double)v->integer;
    } else {
        v->real = strtod(v->text, &end);
    }
    if (errno || end == v->text || *end || v->real != v->real)
        return mm_fail(MM_E_ARG, "--%s must be %s, not '%.80s'", option->name,
                       option->kind == MM_OPTION_INT ? "a whole number"
                                                     : "a number",
                       v->text);
    bool bounded = option->min != 0 || option->max != 0;
    if (bounded && (v->real < option->min || v->real > option->max))
        return mm_fail(MM_E_ARG, "--%s must be between %g and %g, not %.80s",
                       option->name, option->min, option->max, v->text);
    return MM_OK;
}

static mm_status read_choice(const mm_option *option, const char *text)
{
    char **choices = NULL;
    int n = 0;
    MM_TRY(mm_names_split(option->choices, &choices, &n));
    mm_status st = MM_E_ARG;
    for (int i = 0; i < n; i++)
        if (strcmp(choices[i], text) == 0)
            st = MM_OK;
    if (st != MM_OK) {
        char what[64];
        snprintf(what, sizeof what, "value of --%s", option->name);
        st = mm_names_unknown(what, text, (const char *const *)choices, n);
    }
    free(choices);
    return st;
}

static mm_status read_value(const mm_option *option, value *v)
{
    switch (option->kind) {
    case MM_OPTION_INT:
    case MM_OPTION_REAL:
        return read_number(option, v);
    case MM_OPTION_CHOICE:
        return read_choice(option, v->text);
    case MM_OPTION_TEXT:
        if (!v->text[0])
            return mm_fail(MM_E_ARG, "--%s is empty", option->name);
        return MM_OK;
    case MM_OPTION_FLAG:
        break;
    }
    return MM_OK;
}

static mm_status take_option(mm_options *options, int argc, char **argv, int *i)
{
    const mm_option_table *table = options->table;
    int row = 0;
    const char *inline_value;
    MM_TRY(find_row(table, argv[*i], &row, &inline_value));
    const mm_option *option = &table->rows[row];
    value *v = &options->values[row];
    if (option->kind == MM_OPTION_FLAG) {
        if (inline_value)
            return mm_fail(MM_E_ARG, "--%s takes no value", option->name);
        v->text = "true";
    } else if (inline_value) {
        v->text = inline_value;
    } else {
        if (*i + 1 >= argc)
            return mm_fail(MM_E_ARG, "--%s needs a value (%s)", option->name,
                           option->value);
        v->text = argv[++*i];
    }
    v->given = true;
    return MM_OK;
}

static mm_status take_arguments(mm_options *options, int argc, char **argv)
{
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (only_operands || argument[0] != '-' || !argument[1])
            options->operands[options->n_operands++] = argv[i];
        else if (strcmp(argument, "--") == 0)
            only_operands = true;
        else
            MM_TRY(take_option(options, argc, argv, &i));
    }
    if (options->n_operands && !options->table->operands)
        return mm_fail(MM_E_ARG, "unexpected argument '%.80s'",
                       options->operands[0]);
    int needed = options->table->n_operands;
    if (needed && options->n_operands != needed)
        return mm_fail(MM_E_ARG, "expected %d arguments, %s, not %d", needed,
                       options->table->operands, options->n_operands);
    return MM_OK;
}

static mm_status read_values(mm_options *options)
{
    for (int i = 0; i < options->table->n_rows; i++) {
        const mm_option *option = &options->table->rows[i];
        value *v = &options->values[i];
        if (!v->given)
            v->text = option->fallback;
        if (v->text)
            MM_TRY(read_value(option, v));
        else if (option->required)
            return mm_fail(MM_E_ARG, "--%s is required: %s", option->name,
                           option->help);
    }
    return MM_OK;
}

mm_status mm_options_parse(const mm_option_table *table, int argc, char **argv,
                           mm_options **options)
{
    mm_options *o = calloc(1, sizeof *o);
    mm_status st = mm_fail(MM_E_MEMORY, "no memory for options");
    if (!o)
        return st;
    o->table = table;
    o->values = calloc((size_t)table->n_rows, sizeof *o->values);
    o->operands = calloc((size_t)argc + 1, sizeof *o->operands);
    if (!o->values || !o->operands)
        goto fail;
    MM_TRY_GOTO(st, fail, take_arguments(o, argc, argv));
    MM_TRY_GOTO(st, fail, read_values(o));
    *options = o;
    return MM_OK;
fail:
    mm_options_destroy(&o);
    return st;
}

void mm_options_destroy(mm_options **options)
{
    if (!*options)
        return;
    free((*options)->values);
    free((*options)->operands);
    free(*options);
    *options = NULL;
}

static const value *value_of(const mm_options *options, const char *name)
{
    int row = row_of(options->table, name);
    MM_ASSERT(row >= 0);
    return &options->values[row];
}

bool mm_options_flag(const mm_options *options, const char *name)
{
    return value_of(options, name)->given;
}

int64_t mm_options_int(const mm_options *options, const char *name)
{
    const value *v = value_of(options, name);
    MM_ASSERT(v->text);
    return v->integer;
}

double mm_options_real(const mm_options *options, const char *name)
{
    const value *v = value_of(options, name);
    MM_ASSERT(v->text);
    return v->real;
}

const char *mm_options_text(const mm_options *options, const char *name)
{
    return value_of(options, name)->text;
}

bool mm_options_is_set(const mm_options *options, const char *name)
{
    return value_of(options, name)->text != NULL;
}

bool mm_options_is_given(const mm_options *options, const char *name)
{
    return value_of(options, name)->given;
}

void mm_options_set_default(mm_options *options, const char *name,
                            const char *text)
{
    int row = row_of(options->table, name);
    MM_ASSERT(row >= 0 && (options->table->rows[row].kind == MM_OPTION_TEXT ||
                           options->table->rows[row].kind == MM_OPTION_CHOICE));
    if (!options->values[row].text)
        options->values[row].text = text;
}

int mm_options_n_operands(const mm_options *options)
{
    return options->n_operands;
}

const char *mm_options_operand(const mm_options *options, int i)
{
    return options->operands[i];
}

static json_t *value_json(const mm_option *option, const value *v)
{
    switch (option->kind) {
    case MM_OPTION_FLAG:
        return json_boolean(v->given);
    case MM_OPTION_INT:
        return json_integer(v->integer);
    case MM_OPTION_REAL:
        return json_real(v->real);
    case MM_OPTION_TEXT:
    case MM_OPTION_CHOICE:
        break;
    }
    return mm_utf8_json(v->text);
}

json_t *mm_options_to_json(const mm_options *options)
{
    json_t *recorded = json_object();
    for (int i = 0; i < options->table->n_rows; i++) {
        const value *v = &options->values[i];
        const mm_option *option = &options->table->rows[i];
        if (v->text &&
            json_object_set_new(recorded, option->name, value_json(option, v)))
            goto fail;
    }
    if (options->n_operands) {
        json_t *operands = json_array();
        int n = 0;
        while (n < options->n_operands &&
               !json_array_append_new(operands,
                                      mm_utf8_json(options->operands[n])))
            n++;
        if (json_object_set_new(recorded, "operands", operands) ||
            n < options->n_operands)
            goto fail;
    }
    return recorded;
fail:
    json_decref(recorded);
    return NULL;
}

/** What an option stands for that was not recorded: its default, since the
 * options may have been recorded before it existed. NULL: not set. */
static json_t *absent_json(const mm_option *option, const value *now)
{
    value v = {.text = now->given ? option->fallback : now->text};
    if (!v.text || read_value(option, &v) != MM_OK)
        return NULL;
    return value_json(option, &v);
}

static mm_status check_option(const mm_option *option, const value *v,
                              const json_t *recorded)
{
    json_t *now = v->text ? value_json(option, v) : NULL;
    json_t *before = json_incref(json_object_get(recorded, option->name));
    if (!before)
        before = absent_json(option, v);
    mm_status st = MM_OK;
    if (now && before ? !json_equal(now, before) : now || before) {
        char *was = before ? json_dumps(before, JSON_ENCODE_ANY) : NULL;
        char *is = now ? json_dumps(now, JSON_ENCODE_ANY) : NULL;
        st = mm_fail(MM_E_ARG, "--%s was %.200s and is %.200s now",
                     option->name, was ? was : "not set", is ? is : "not set");
        free(was);
        free(is);
    }
    json_decref(before);
    json_decref(now);
    return st;
}

mm_status mm_options_check_recorded(const mm_options *options,
                                    const json_t *recorded)
{
    for (int i = 0; i < options->table->n_rows; i++) {
        const mm_option *option = &options->table->rows[i];
        if (!option->free)
            MM_TRY(check_option(option, &options->values[i], recorded));
    }
    return MM_OK;
}

void mm_option_table_help(const mm_option_table *table, FILE *out)
{
    fprintf(out, "usage: %s [options]%s%s\n\n%s.\n\noptions:\n", table->program,
            table->operands ? " " : "", table->operands ? table->operands : "",
            table->purpose);
    for (int i = 0; i < table->n_rows; i++) {
        const mm_option *option = &table->rows[i];
        char left[64];
        int used = 0;
        if (option->letter)
            used = snprintf(left, sizeof left, "-%c, ", option->letter);
        snprintf(left + used, sizeof left - (size_t)used, "--%s %s",
                 option->name,
                 option->kind == MM_OPTION_FLAG ? "" : option->value);
        fprintf(out, "  %-30s %s", left, option->help);
        if (option->choices)
            fprintf(out, " {%s}", option->choices);
        if (option->required)
            fprintf(out, " (required)");
        else if (option->fallback)
            fprintf(out, " (default %s)", option->fallback);
        fputc('\n', out);
    }
    fprintf(out, "  %-30s %s\n  %-30s %s\n", "--help", "show this and stop",
            "--version", "show the version and stop");
}
