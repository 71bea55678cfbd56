#ifndef MAGMAX_SRC_BASE_LOG_H
#define MAGMAX_SRC_BASE_LOG_H

#include "src/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/**
 * What a person sees while a program runs: lines and a progress bar, on stderr,
 * from rank 0 alone. On a terminal the bar is redrawn in place; elsewhere a
 * plain line appears now and then.
 *
 * Ranks    Local; other ranks than 0 print nothing.
 * Errors   none: a closed stderr is not a failure.
 */
typedef struct mm_log mm_log;

/** Gives a log that prints as `program`, with a bar where stderr ends on a
 * `terminal`; NULL without memory (then every call takes NULL and prints
 * nothing). */
mm_log *mm_log_create(const char *program, int rank, bool terminal);
void mm_log_destroy(mm_log **log);

/** A line of information. */
void mm_log_line(mm_log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** A line "program: warning: ...". */
void mm_log_warn(mm_log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** A line "program: ...": the message of a run that failed. */
void mm_log_error(mm_log *log, const char *text);

/** The same, printed by any rank, where ranks can no longer agree. */
void mm_log_fatal(mm_log *log, const char *text);

/** As mm_log_line, printed by any rank: for what only that rank may know. */
void mm_log_any_rank(mm_log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Start a bar: `what` in a few words, out of `total` units ("images"). */
void mm_progress_begin(mm_log *log, const char *what, const char *unit,
                       int64_t total);

/** `done` units so far; `note` is shown behind rate and time left. Cheap. */
void mm_progress_update(mm_log *log, int64_t done, const char *note);

/** End the bar with a line that stays. */
void mm_progress_end(mm_log *log);

#endif
