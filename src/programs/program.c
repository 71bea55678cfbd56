/* What every program does around its work: options, --help, --version, watching
 * the ranks, messages, exit code. */

#include "src/programs/program.h"

#include "comm/check_same.h"
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

/** A full disk is noticed only now: what was printed is still in a buffer. */
static mm_status flush_stdout(void)
{
    return fflush(stdout) || ferror(stdout)
               ? mm_fail_errno("cannot write to standard output")
               : MM_OK;
}

/** Where ranks can no longer agree: say why, and end them all. */
static void end(void *context)
{
    const mm_job *job = context;
    mm_log_fatal(job->log, mm_fail_message());
    mm_comm_abort(job->comm, 1);
}

static mm_status watched(mm_job *job, mm_status (*work)(const mm_job *job))
{
    const mm_comm_watch_plan plan = {
        .limit_s = mm_options_real(job->options, "rank-timeout"),
        .log = job->log,
        .end = end,
        .context = job,
    };
    MM_TRY(mm_comm_watch(job->comm, &plan));
    mm_status st = work(job);
    if (st == MM_OK)
        st = flush_stdout();
    return st == MM_E_COMM ? st : mm_comm_agree(job->comm, st);
}

static int run(const mm_option_table *table,
               mm_status (*work)(const mm_job *job), mm_comm *comm, int argc,
               char **argv)
{
    mm_log *log = mm_log_create(table->program, mm_comm_rank(comm),
                                mm_comm_stderr_is_terminal());
    mm_job job = {.comm = comm, .log = log};
    int exit_code = 0;
    mm_status st =
        mm_comm_agree(comm, mm_options_parse(table, argc, argv, &job.options));
    if (st != MM_OK) {
        exit_code = 2;
    } else {
        st = watched(&job, work);
        exit_code = st == MM_OK ? 0 : 1;
    }
    if (st == MM_E_COMM)
        end(&job);
    if (st != MM_OK)
        mm_log_error(log, mm_fail_message());
    mm_options_destroy(&job.options);
    mm_log_destroy(&log);
    return exit_code;
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
    if (exit_code == 0 && flush_stdout() != MM_OK) {
        fprintf(stderr, "%s: %s\n", table->program, mm_fail_message());
        exit_code = 1;
    }
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
    return mm_file_check_writable(path);
}

mm_status mm_job_check_output(const mm_job *job, const char *output,
                              const char *const *inputs)
{
    MM_TRY(MM_CHECK_SAME(job->comm, MM_SAME_TEXT(output)));
    if (!mm_options_text(job->options, output))
        return MM_OK;
    mm_status st = MM_OK;
    if (mm_comm_rank(job->comm) == 0)
        st = check_output(job->options, output, inputs);
    return mm_comm_agree(job->comm, st);
}
