#include "src/program.h"

#include "io/file.h"

#include <stdlib.h>
#include <string.h>

static bool asked_for(const char *what, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], what) == 0)
            return true;
    return false;
}

static int run(const mm_option_table *table,
               mm_status (*work)(const mm_job *job), mm_comm *comm, int argc,
               char **argv)
{
    mm_log *log = mm_log_create(table->program, mm_comm_rank(comm),
                                mm_comm_stderr_is_terminal());
    mm_options *options = NULL;
    int exit_code = 0;
    mm_status st =
        mm_comm_agree(comm, mm_options_parse(table, argc, argv, &options));
    if (st != MM_OK) {
        exit_code = 2;
    } else {
        mm_job job = {comm, log, options};
        st = work(&job);
        if (st != MM_E_COMM)
            st = mm_comm_agree(comm, st);
        exit_code = st == MM_OK ? 0 : 1;
    }
    if (st == MM_E_COMM) {
        mm_log_fatal(log, mm_fail_message());
        mm_comm_abort(comm, 1);
    }
    if (st != MM_OK)
        mm_log_error(log, mm_fail_message());
    mm_options_destroy(&options);
    mm_log_destroy(&log);
    return exit_code;
}

/* What the last buffer holds meets a full disk only now. */
static int finish_stdout(const mm_option_table *table, mm_comm *comm)
{
    mm_status st = MM_OK;
    if (mm_comm_rank(comm) == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        st = mm_fail_errno("cannot write to standard output");
    if (st != MM_OK)
        fprintf(stderr, "%s: %s\n", table->program, mm_fail_message());
    return mm_comm_agree(comm, st) == MM_OK ? 0 : 1;
}

int mm_program_main(const mm_option_table *table,
                    mm_status (*work)(const mm_job *job), int argc, char **argv)
{
    mm_comm *comm = NULL;
    if (mm_comm_create(&argc, &argv, &comm) != MM_OK) {
        fprintf(stderr, "%s: %s\n", table->program, mm_fail_message());
        return 1;
    }
    int exit_code = 0;
    bool first = mm_comm_rank(comm) == 0;
    if (asked_for("--help", argc, argv)) {
        if (first)
            mm_option_table_help(table, stdout);
    } else if (asked_for("--version", argc, argv)) {
        if (first)
            printf("%s %s\n", table->program, MAGMAX_VERSION);
    } else {
        exit_code = run(table, work, comm, argc, argv);
    }
    if (exit_code == 0)
        exit_code = finish_stdout(table, comm);
    mm_comm_destroy(&comm);
    return exit_code;
}

static mm_status check_output(const mm_options *options, const char *output,
                              const char *const *inputs)
{
    const char *path = mm_options_text(options, output);
    for (; *inputs; inputs++) {
        const char *input = mm_options_text(options, *inputs);
        if (input && mm_file_exists(input) && mm_file_same(input, path))
            return mm_fail(MM_E_ARG,
                           "--%s %s would overwrite what --%s reads: choose "
                           "another name",
                           output, path, *inputs);
    }
    return mm_file_check_new(path);
}

mm_status mm_job_check_output(const mm_job *job, const char *output,
                              const char *const *inputs)
{
    if (!mm_options_text(job->options, output))
        return MM_OK;
    mm_status st = MM_OK;
    if (mm_comm_rank(job->comm) == 0)
        st = check_output(job->options, output, inputs);
    return mm_comm_agree(job->comm, st);
}
