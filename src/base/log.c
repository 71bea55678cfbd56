/* Lines and progress bars on stderr; everything that the programs print there
 * goes through this file. */

#include "src/base/log.h"

#include "src/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mm_log {
    const char *program;
    bool silent; /* not rank 0 */
    bool terminal;
    bool bar; /* a bar is on the screen */
    char what[80];
    const char *unit;
    int64_t total, done;
    double begin_s, shown_s;
    char note[80];
};

mm_log *mm_log_create(const char *program, int rank, bool terminal)
{
    mm_log *log = calloc(1, sizeof *log);
    if (!log)
        return NULL;
    log->program = program;
    log->silent = rank != 0;
    log->terminal = terminal;
    return log;
}

void mm_log_destroy(mm_log **log)
{
    free(*log);
    *log = NULL;
}

static void erase_bar(mm_log *log)
{
    if (log->bar)
        fputs("\r\033[K", stderr);
    log->bar = false;
}

__attribute__((format(printf, 3, 0))) static void
print_line(mm_log *log, const char *before, const char *format, va_list args)
{
    if (!log || log->silent)
        return;
    erase_bar(log);
    /* One write a line: lines of several programs do not mix. */
    char line[2400];
    int used = snprintf(line, sizeof line - 1, "%s", before);
    int more =
        vsnprintf(line + used, sizeof line - 1 - (size_t)used, format, args);
    size_t length = strnlen(line, sizeof line - 2);
    (void)more;
    line[length] = '\n';
    fwrite(line, 1, length + 1, stderr);
}

void mm_log_line(mm_log *log, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(log, "", format, args);
    va_end(args);
}

void mm_log_warn(mm_log *log, const char *format, ...)
{
    char before[64] = "";
    if (log)
        snprintf(before, sizeof before, "%s: warning: ", log->program);
    va_list args;
    va_start(args, format);
    print_line(log, before, format, args);
    va_end(args);
}

static void print_error(mm_log *log, const char *before, const char *format,
                        ...) __attribute__((format(printf, 3, 4)));

static void print_error(mm_log *log, const char *before, const char *format,
                        ...)
{
    va_list args;
    va_start(args, format);
    print_line(log, before, format, args);
    va_end(args);
}

void mm_log_error(mm_log *log, const char *text)
{
    char before[64] = "";
    if (log)
        snprintf(before, sizeof before, "%s: ", log->program);
    print_error(log, before, "%s", text);
}

void mm_log_fatal(mm_log *log, const char *text)
{
    if (log)
        log->silent = false;
    mm_log_error(log, text);
}

void mm_log_any_rank(mm_log *log, const char *format, ...)
{
    if (!log)
        return;
    bool silent = log->silent;
    va_list args;
    log->silent = false;
    va_start(args, format);
    print_line(log, "", format, args);
    va_end(args);
    log->silent = silent;
}

static void duration_text(double seconds, char text[32])
{
    int64_t s = seconds > 0 ? (int64_t)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(text, 32, "%lldh%02lldm", (long long)(s / 3600),
                 (long long)(s / 60 % 60));
    else
        snprintf(text, 32, "%lldm%02llds", (long long)(s / 60),
                 (long long)(s % 60));
}

static void show_progress(mm_log *log, double now_s)
{
    double spent_s = now_s - log->begin_s;
    double rate = spent_s > 0 ? (double)log->done / spent_s : 0;
    double left_s = rate > 0 ? (double)(log->total - log->done) / rate : 0;
    char left[32], bar[32];
    duration_text(left_s, left);
    int width = 20, filled = 0;
    if (log->total > 0)
        filled = (int)(width * log->done / log->total);
    for (int i = 0; i < width; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[width] = '\0';
    fprintf(stderr,
            log->terminal ? "\r\033[K%s [%s] %lld/%lld  %.4g %s/s  %s left%s%s"
                          : "%s [%s] %lld/%lld  %.4g %s/s  %s left%s%s\n",
            log->what, bar, (long long)log->done, (long long)log->total, rate,
            log->unit, left, log->note[0] ? "  " : "", log->note);
    log->bar = log->terminal;
    log->shown_s = now_s;
}

void mm_progress_begin(mm_log *log, const char *what, const char *unit,
                       int64_t total)
{
    if (!log || log->silent)
        return;
    snprintf(log->what, sizeof log->what, "%s", what);
    log->unit = unit;
    log->total = total;
    log->done = 0;
    log->note[0] = '\0';
    log->begin_s = log->shown_s = mm_clock_s();
}

void mm_progress_update(mm_log *log, int64_t done, const char *note)
{
    if (!log || log->silent)
        return;
    log->done = done;
    double now_s = mm_clock_s();
    if (now_s - log->shown_s < (log->terminal ? 0.1 : 10.0))
        return;
    snprintf(log->note, sizeof log->note, "%s", note ? note : "");
    show_progress(log, now_s);
}

void mm_progress_end(mm_log *log)
{
    if (!log || log->silent)
        return;
    erase_bar(log);
    double spent_s = mm_clock_s() - log->begin_s;
    char spent[32];
    duration_text(spent_s, spent);
    mm_log_line(log, "%s: %lld %s in %s (%.4g %s/s)", log->what,
                (long long)log->done, log->unit, spent,
                spent_s > 0 ? (double)log->done / spent_s : 0, log->unit);
}
