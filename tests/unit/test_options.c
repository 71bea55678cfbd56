/* The command line: parser, record and help from one table. */
#include "src/base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const mm_option rows[] = {
    {.name = "data-set",
     .kind = MM_OPTION_TEXT,
     .value = "FILE",
     .help = "images to learn",
     .required = true},
    {.name = "batch-size",
     .kind = MM_OPTION_INT,
     .value = "N",
     .fallback = "128",
     .help = "images per step",
     .min = 1,
     .max = 4096},
    {.name = "offset",
     .kind = MM_OPTION_INT,
     .value = "N",
     .help = "any whole number"},
    {.name = "lr",
     .kind = MM_OPTION_REAL,
     .value = "RATE",
     .fallback = "1e-5",
     .help = "learning rate",
     .min = 0,
     .max = 1},
    {.name = "split",
     .kind = MM_OPTION_CHOICE,
     .value = "HOW",
     .help = "how to divide",
     .choices = "class,data,domain"},
    {.name = "out",
     .kind = MM_OPTION_TEXT,
     .value = "DIR",
     .help = "where results go",
     .letter = 'o',
     .free = true},
    {.name = "dry-run",
     .kind = MM_OPTION_FLAG,
     .help = "only look",
     .letter = 'n'},
};

enum { N_ROWS = sizeof rows / sizeof *rows, MOST_ARGS = 16 };

static const mm_option_table with_operands = {.program = "magmax_try",
                                              .purpose = "Try options",
                                              .operands = "FILE...",
                                              .rows = rows,
                                              .n_rows = N_ROWS};
static const mm_option_table without_operands = {.program = "magmax_try",
                                                 .purpose = "Try options",
                                                 .rows = rows,
                                                 .n_rows = N_ROWS};

/** Parse a command line given as words; the strings live as long as `line`. */
typedef struct command {
    char text[512];
    char *words[MOST_ARGS];
} command;

static mm_status parse(const mm_option_table *table, command *c,
                       const char *line, mm_options **options)
{
    static char program[] = "magmax_try";
    int n = 0;
    strcpy(c->text, line);
    c->words[n++] = program;
    for (char *word = strtok(c->text, " "); word; word = strtok(NULL, " "))
        c->words[n++] = word;
    *options = NULL;
    return mm_options_parse(table, n, c->words, options);
}

static mm_options *parsed(command *c, const char *line)
{
    mm_options *options;
    if (parse(&with_operands, c, line, &options) != MM_OK)
        fail_msg("%s: %s", line, mm_fail_message());
    return options;
}

static void assert_says(const char *fragment)
{
    if (!strstr(mm_fail_message(), fragment))
        fail_msg("'%s' does not say '%s'", mm_fail_message(), fragment);
}

static void assert_refused(const char *line, const char *fragment)
{
    command c;
    mm_options *options;
    if (parse(&with_operands, &c, line, &options) != MM_E_ARG)
        fail_msg("'%s' is accepted", line);
    assert_null(options);
    assert_says(fragment);
}

static void a_value_follows_or_is_joined_by_an_equals_sign(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data-set a.npz --batch-size=32 --lr 0.5");
    assert_string_equal(mm_options_text(o, "data-set"), "a.npz");
    assert_int_equal(mm_options_int(o, "batch-size"), 32);
    assert_true(mm_options_real(o, "lr") == 0.5);
    mm_options_destroy(&o);
    assert_null(o);
    o = parsed(&c, "--data-set=a=b.npz");
    assert_string_equal(mm_options_text(o, "data-set"), "a=b.npz");
    mm_options_destroy(&o);
}

static void dashes_and_underscores_are_the_same(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data_set x_y.npz --batch_size=7 --dry_run");
    assert_string_equal(mm_options_text(o, "data-set"), "x_y.npz");
    assert_int_equal(mm_options_int(o, "batch-size"), 7);
    assert_true(mm_options_flag(o, "dry-run"));
    mm_options_destroy(&o);
}

static void a_letter_stands_for_a_name(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data-set x -o folder -n");
    assert_string_equal(mm_options_text(o, "out"), "folder");
    assert_true(mm_options_flag(o, "dry-run"));
    mm_options_destroy(&o);
    o = parsed(&c, "--data-set x -ofolder");
    assert_string_equal(mm_options_text(o, "out"), "folder");
    mm_options_destroy(&o);
}

static void the_rest_are_operands(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "one --data-set x two - -- --three -o");
    const char *const operands[] = {"one", "two", "-", "--three", "-o"};
    assert_int_equal(mm_options_n_operands(o), 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(mm_options_operand(o, i), operands[i]);
    assert_false(mm_options_is_set(o, "out"));
    mm_options_destroy(&o);
}

static void operands_fail_where_none_are_meant(void **state)
{
    (void)state;
    command c;
    mm_options *o;
    assert_int_equal(parse(&without_operands, &c, "--data-set x y", &o),
                     MM_E_ARG);
    assert_says("unexpected argument 'y'");
    assert_int_equal(parse(&without_operands, &c, "--data-set x --", &o),
                     MM_OK);
    assert_int_equal(mm_options_n_operands(o), 0);
    mm_options_destroy(&o);
}

static void a_number_of_operands_is_held_to(void **state)
{
    (void)state;
    const mm_option_table two = {.program = "magmax_try",
                                 .purpose = "Try options",
                                 .operands = "IN OUT",
                                 .n_operands = 2,
                                 .rows = rows,
                                 .n_rows = N_ROWS};
    command c;
    mm_options *o;
    assert_int_equal(parse(&two, &c, "--data-set x a", &o), MM_E_ARG);
    assert_says("expected 2 arguments, IN OUT, not 1");
    assert_int_equal(parse(&two, &c, "--data-set x a b c", &o), MM_E_ARG);
    assert_says("not 3");
    assert_int_equal(parse(&two, &c, "a --data-set x b", &o), MM_OK);
    mm_options_destroy(&o);
}

static void defaults_are_set_but_not_given(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data-set x");
    assert_int_equal(mm_options_int(o, "batch-size"), 128);
    assert_true(mm_options_real(o, "lr") == 1e-5);
    assert_true(mm_options_is_set(o, "lr"));
    assert_false(mm_options_is_given(o, "lr"));
    assert_true(mm_options_is_given(o, "data-set"));
    assert_false(mm_options_is_set(o, "split"));
    assert_null(mm_options_text(o, "split"));
    assert_null(mm_options_text(o, "out"));
    assert_false(mm_options_flag(o, "dry-run"));
    mm_options_destroy(&o);
}

static void the_last_of_several_values_counts(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data-set x --batch-size 1 --batch_size 2");
    assert_int_equal(mm_options_int(o, "batch-size"), 2);
    mm_options_destroy(&o);
}

static void a_negative_number_is_a_value(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data-set x --offset -3");
    assert_int_equal(mm_options_int(o, "offset"), -3);
    mm_options_destroy(&o);
    o = parsed(&c, "--data-set x --offset=9007199254740993");
    assert_true(mm_options_int(o, "offset") == 9007199254740993);
    mm_options_destroy(&o);
}

static void a_required_option_that_is_missing_fails(void **state)
{
    (void)state;
    assert_refused("--lr 0.1", "--data-set is required: images to learn");
}

static void a_missing_value_fails(void **state)
{
    (void)state;
    assert_refused("--data-set x --lr", "--lr needs a value (RATE)");
    assert_refused("--data-set x -o", "--out needs a value (DIR)");
    assert_refused("--data-set=", "--data-set is empty");
    assert_refused("--data-set x --lr=", "--lr must be a number, not ''");
}

static void a_malformed_number_fails(void **state)
{
    (void)state;
    const char *const line[] = {"--batch-size ten", "--batch-size 1.5",
                                "--batch-size 7x", "--batch-size 1e3",
                                "--offset 99999999999999999999"};
    for (int i = 0; i < 5; i++) {
        char with_rest[128] = "--data-set x ";
        strcat(with_rest, line[i]);
        assert_refused(with_rest, "must be a whole number, not '");
    }
    assert_refused("--data-set x --lr fast",
                   "--lr must be a number, not 'fast'");
    assert_refused("--data-set x --lr nan", "--lr must be a number, not 'nan'");
    assert_refused("--data-set x --lr 1e999", "--lr must be a number");
}

static void a_number_out_of_range_fails(void **state)
{
    (void)state;
    command c;
    assert_refused("--data-set x --batch-size 0",
                   "--batch-size must be between 1 and 4096, not 0");
    assert_refused("--data-set x --batch-size=4097", "between 1 and 4096");
    assert_refused("--data-set x --lr -0.1", "between 0 and 1, not -0.1");
    assert_refused("--data-set x --lr inf", "between 0 and 1, not inf");
    mm_options *o = parsed(&c, "--data-set x --batch-size 4096 --lr 0");
    assert_int_equal(mm_options_int(o, "batch-size"), 4096);
    mm_options_destroy(&o);
}

static void a_choice_is_one_of_its_list(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data-set x --split domain");
    assert_string_equal(mm_options_text(o, "split"), "domain");
    mm_options_destroy(&o);
    assert_refused("--data-set x --split clas",
                   "unknown value of --split 'clas'; did you mean class? "
                   "Known: class, data, domain");
    assert_refused("--data-set x --split class,data", "unknown value");
}

static void an_unknown_option_fails_with_the_nearest(void **state)
{
    (void)state;
    assert_refused("--data-set x --batchsize 3", "did you mean --batch-size?");
    assert_refused("--batch_sise=3", "unknown option '--batch_sise=3'; "
                                     "did you mean --batch-size?");
    assert_refused("--lrr 1", "Known: --data-set, --batch-size, --offset, "
                              "--lr, --split, --out, --dry-run");
    assert_refused("-x", "unknown option '-x'");
    assert_refused("--batch 3", "unknown option");
    assert_refused("--Batch-Size 3", "did you mean --batch-size?");
}

static void flags_take_no_value(void **state)
{
    (void)state;
    command c;
    assert_refused("--data-set x --dry-run=yes", "--dry-run takes no value");
    assert_refused("--data-set x -nyes", "--dry-run takes no value");
    mm_options *o = parsed(&c, "--data-set x --dry-run yes");
    assert_int_equal(mm_options_n_operands(o), 1);
    mm_options_destroy(&o);
}

static void a_record_holds_every_value_in_its_type(void **state)
{
    (void)state;
    command c;
    mm_options *o = parsed(&c, "--data-set x --split data --dry_run a b");
    json_t *record = mm_options_to_json(o);
    json_t *expected =
        json_loads("{\"data-set\": \"x\", \"batch-size\": 128, \"lr\": 1e-5,"
                   " \"split\": \"data\", \"dry-run\": true, \"operands\": "
                   "[\"a\", \"b\"]}",
                   0, NULL);
    assert_non_null(expected);
    assert_true(json_equal(record, expected));
    json_decref(expected);
    json_decref(record);
    mm_options_destroy(&o);
    o = parsed(&c, "--data-set x");
    record = mm_options_to_json(o);
    assert_null(json_object_get(record, "operands"));
    assert_null(json_object_get(record, "split"));
    json_decref(record);
    mm_options_destroy(&o);
}

/** What check_record says when `then` made the record and `now` reads it. */
static mm_status compare(const char *then, const char *now)
{
    command c;
    mm_options *o = parsed(&c, then);
    json_t *record = mm_options_to_json(o);
    mm_options_destroy(&o);
    /* As it comes back from a file. */
    char *text = json_dumps(record, 0);
    json_decref(record);
    record = json_loads(text, 0, NULL);
    free(text);
    o = parsed(&c, now);
    mm_status st = mm_options_check_recorded(o, record);
    mm_options_destroy(&o);
    json_decref(record);
    return st;
}

static void a_record_agrees_however_it_is_typed(void **state)
{
    (void)state;
    assert_int_equal(compare("--data-set x", "--data-set x"), MM_OK);
    assert_int_equal(compare("--data-set x --lr 0.001 -n --offset 2",
                             "-n --offset=2 --lr=1e-3 --data_set=x"),
                     MM_OK);
    assert_int_equal(compare("--data-set x", "--data-set x --batch-size 128"),
                     MM_OK);
    assert_int_equal(compare("--data-set x --lr 1", "--data-set x --lr 1.0"),
                     MM_OK);
}

static void a_record_names_the_option_that_differs(void **state)
{
    (void)state;
    assert_int_equal(compare("--data-set x", "--data-set y"), MM_E_ARG);
    assert_string_equal(mm_fail_message(),
                        "--data-set was \"x\" and is \"y\" now");
    assert_int_equal(compare("--data-set x --batch-size 8", "--data-set x"),
                     MM_E_ARG);
    assert_string_equal(mm_fail_message(), "--batch-size was 8 and is 128 now");
    assert_int_equal(compare("--data-set x", "--data-set x --split class"),
                     MM_E_ARG);
    assert_string_equal(mm_fail_message(),
                        "--split was not set and is \"class\" now");
    assert_int_equal(compare("--data-set x --offset 1", "--data-set x"),
                     MM_E_ARG);
    assert_string_equal(mm_fail_message(), "--offset was 1 and is not set now");
    assert_int_equal(compare("--data-set x", "--data-set x -n"), MM_E_ARG);
    assert_says("--dry-run was not set");
}

static void a_record_older_than_an_option_stands_for_its_default(void **state)
{
    (void)state;
    json_t *record = json_pack("{s:s}", "data-set", "x");
    command c;
    mm_options *o = parsed(&c, "--data-set x");
    assert_int_equal(mm_options_check_recorded(o, record), MM_OK);
    mm_options_destroy(&o);
    o = parsed(&c, "--data-set x --batch-size 128");
    assert_int_equal(mm_options_check_recorded(o, record), MM_OK);
    mm_options_destroy(&o);
    o = parsed(&c, "--data-set x --batch-size 8");
    assert_int_equal(mm_options_check_recorded(o, record), MM_E_ARG);
    assert_string_equal(mm_fail_message(), "--batch-size was 128 and is 8 now");
    mm_options_destroy(&o);
    json_decref(record);
}

static void a_record_leaves_free_options_alone(void **state)
{
    (void)state;
    assert_int_equal(compare("--data-set x -o a", "--data-set x -o b"), MM_OK);
    assert_int_equal(compare("--data-set x", "--data-set x -o b"), MM_OK);
}

static void help_mentions_every_row(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    assert_non_null(out);
    mm_option_table_help(&with_operands, out);
    fclose(out);
    assert_non_null(strstr(text, "magmax_try [options] FILE..."));
    assert_non_null(strstr(text, "Try options"));
    for (int i = 0; i < N_ROWS; i++) {
        char name[64];
        snprintf(name, sizeof name, "--%s", rows[i].name);
        assert_non_null(strstr(text, name));
        assert_non_null(strstr(text, rows[i].help));
    }
    assert_non_null(strstr(text, "-o, --out DIR"));
    assert_non_null(strstr(text, "{class,data,domain}"));
    assert_non_null(strstr(text, "(default 128)"));
    assert_non_null(strstr(text, "(required)"));
    assert_non_null(strstr(text, "--help"));
    assert_non_null(strstr(text, "--version"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_follows_or_is_joined_by_an_equals_sign),
        cmocka_unit_test(dashes_and_underscores_are_the_same),
        cmocka_unit_test(a_letter_stands_for_a_name),
        cmocka_unit_test(the_rest_are_operands),
        cmocka_unit_test(operands_fail_where_none_are_meant),
        cmocka_unit_test(a_number_of_operands_is_held_to),
        cmocka_unit_test(defaults_are_set_but_not_given),
        cmocka_unit_test(the_last_of_several_values_counts),
        cmocka_unit_test(a_negative_number_is_a_value),
        cmocka_unit_test(a_required_option_that_is_missing_fails),
        cmocka_unit_test(a_missing_value_fails),
        cmocka_unit_test(a_malformed_number_fails),
        cmocka_unit_test(a_number_out_of_range_fails),
        cmocka_unit_test(a_choice_is_one_of_its_list),
        cmocka_unit_test(an_unknown_option_fails_with_the_nearest),
        cmocka_unit_test(flags_take_no_value),
        cmocka_unit_test(a_record_holds_every_value_in_its_type),
        cmocka_unit_test(a_record_agrees_however_it_is_typed),
        cmocka_unit_test(a_record_names_the_option_that_differs),
        cmocka_unit_test(a_record_older_than_an_option_stands_for_its_default),
        cmocka_unit_test(a_record_leaves_free_options_alone),
        cmocka_unit_test(help_mentions_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
