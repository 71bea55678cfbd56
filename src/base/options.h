#ifndef MAGMAX_SRC_BASE_OPTIONS_H
#define MAGMAX_SRC_BASE_OPTIONS_H

#include "src/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum mm_option_kind {
    MM_OPTION_FLAG, /* --name                     */
    MM_OPTION_INT,
    MM_OPTION_REAL,
    MM_OPTION_TEXT,
    MM_OPTION_CHOICE /* one of `choices`           */
} mm_option_kind;

/** One row of a program's option table: what the parser, --help and the
 * recorded options in config.json and checkpoints are made of. */
typedef struct mm_option {
    const char *name; /* "batch-size"; '_' is taken for '-' when typed */
    mm_option_kind kind;
    const char *value;    /* placeholder in --help: "N", "FILE"       */
    const char *fallback; /* default, as typed; NULL: not set         */
    const char *help;
    double min, max;     /* numbers: allowed range; both 0: any      */
    const char *choices; /* "class,data,domain"                      */
    char letter;         /* 'o' for -o, or 0                         */
    bool required;
    bool free; /* may differ when a run is continued       */
} mm_option;

/** A program's command line. */
typedef struct mm_option_table {
    const char *program;  /* "magmax_merge"                    */
    const char *purpose;  /* one line                          */
    const char *operands; /* "FILE...", or NULL: none allowed  */
    int n_operands;       /* how many exactly, or 0: any       */
    const mm_option *rows;
    int n_rows;
} mm_option_table;

/** Parsed values. */
typedef struct mm_options mm_options;

/**
 * Parse "--name value", "--name=value", "--flag", "-o value", operands, "--".
 *
 * Memory   Gives *options, freed by mm_options_destroy; keeps table and argv.
 * Ranks    Local; every rank sees the same argv.
 * Errors   MM_E_ARG: an unknown option (known ones and the nearest are named),
 *          a missing or malformed value, a number out of range, a required
 *          option that is missing, too many or too few operands.
 */
mm_status mm_options_parse(const mm_option_table *table, int argc, char **argv,
                           mm_options **options);
void mm_options_destroy(mm_options **options);

/** Values by name; a name or kind that is not in the table is a bug.
 * mm_options_text is NULL where neither a value nor a default is set. */
bool mm_options_flag(const mm_options *options, const char *name);
int64_t mm_options_int(const mm_options *options, const char *name);
double mm_options_real(const mm_options *options, const char *name);
const char *mm_options_text(const mm_options *options, const char *name);

/** Whether the user typed it, or it has a default. */
bool mm_options_is_set(const mm_options *options, const char *name);
/** Whether the user typed it. */
bool mm_options_is_given(const mm_options *options, const char *name);

/** Set an option without a value to one that is known only now, as if it were
 * its default; `text`: kept, one of a choice's. */
void mm_options_set_default(mm_options *options, const char *name,
                            const char *text);

int mm_options_n_operands(const mm_options *options);
const char *mm_options_operand(const mm_options *options, int i);

/** The options to record: every option with a value, as JSON (a new reference;
 * NULL without memory), and "operands" where there are any. */
json_t *mm_options_to_json(const mm_options *options);

/**
 * Check that options recorded earlier agree with these, except for the free
 * ones. An option that was not recorded had its default.
 *
 * Errors   MM_E_ARG naming the first option that differs, with both values.
 */
mm_status mm_options_check_recorded(const mm_options *options,
                                    const json_t *recorded);

void mm_option_table_help(const mm_option_table *table, FILE *out);

#endif
