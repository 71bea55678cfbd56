#ifndef MAGMAX_SRC_PROGRAMS_PROGRAM_H
#define MAGMAX_SRC_PROGRAMS_PROGRAM_H

#include "comm/comm.h"
#include "src/base/log.h"
#include "src/base/options.h"

/** What a program's work receives. */
typedef struct mm_job {
    mm_comm *comm;
    mm_log *log;
    mm_options *options;
} mm_job;

/** A row that every program's table has. */
#define MM_ROW_RANK_TIMEOUT                                                   \
    {                                                                         \
        .name = "rank-timeout", .kind = MM_OPTION_REAL, .value = "S",         \
        .fallback = "45", .min = 0, .max = 1e6, .free = true,                 \
        .help = "seconds that ranks wait for one that is silent before they " \
                "end the job, naming it; 0: without limit"                    \
    }

/**
 * The frame of every program: join the job, parse the command line, handle
 * --help and --version, watch the ranks as --rank-timeout says, do the work,
 * print on rank 0 in one line what went wrong, exit.
 *
 * Ranks    Collective. `work` is called on every rank and may return different
 *          statuses; they are agreed here.
 * Errors   Returns the exit code, the same on every rank: 0, 1 when the work
 *          failed, 2 for an invalid command line. Aborts the job
 *          when the transport is gone.
 */
int mm_program_main(const mm_option_table *table,
                    mm_status (*work)(const mm_job *job), int argc,
                    char **argv);

/**
 * Check the output file that an option names before any work is done: it must
 * not be a file that the program reads, and must be possible to create.
 *
 * Shapes   `inputs`: names of options, NULL behind the last; those that the
 *          user left out do not count. Nothing is checked where `output` is
 *          not set.
 * Ranks    Collective, same output.
 * Errors   MM_E_ARG for an input; MM_E_IO for what exists and is not a
 *          regular file, and for a folder that is missing or not writable.
 */
mm_status mm_job_check_output(const mm_job *job, const char *output,
                              const char *const *inputs);

#endif
