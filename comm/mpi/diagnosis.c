/* What ranks that were probed say of a wait: to wait on, or an error that names
 * those that hold it up, reported by one rank. */

#include "comm/mpi/watch_state.h"

#include <stdio.h>

/* Until a rank that does not reply is held to be the cause of a failure. */
static const double explain_s = 5;
/* How long others leave it to the one that ends the job, which kills itself
 * after 13 s (mm_comm_abort). */
static const double silence_s = 15;

mm_status mm_watch_fail_silently(mm_watch *w)
{
    MM_TRY(mm_watch_serve_for(w, silence_s));
    return mm_fail(MM_E_COMM, "rank %d is ending the job",
                   mm_probe_reporter(w->probe));
}

/**
 * Choose the reporter: the first rank with a diagnosis, the lower one of two.
 * The others still reply, and fail only if that one cannot end the job.
 */
static mm_status elect_reporter(mm_watch *w)
{
    if (mm_probe_reporter(w->probe) < 0) {
        MM_TRY(mm_probe_announce_report(w->probe));
        MM_TRY(mm_watch_serve_for(w, 10 * MM_SERVE_S));
    }
    int reporter = mm_probe_reporter(w->probe);
    return reporter >= 0 && reporter < w->comm->rank ? mm_watch_fail_silently(w)
                                                     : MM_OK;
}

static mm_status fail_naming(mm_watch *w, mm_rank_state state, const char *what,
                             double waited_s)
{
    char names[640];
    mm_probe_names(w->probe, state, names, sizeof names);
    MM_TRY(elect_reporter(w));
    return mm_fail(MM_E_COMM,
                   "%s: %s, while others have waited %.0f s (--rank-timeout); "
                   "the job is ended",
                   names, what, waited_s);
}

/** The lowest of the ranks that wait logs which ones for. */
static void log_wait(const mm_watch *w, double waited_s)
{
    int waiting = mm_probe_lowest(w->probe, MM_RANK_WAITING);
    int device = mm_probe_lowest(w->probe, MM_RANK_DEVICE_BUSY);
    int lowest =
        waiting < 0 || (device >= 0 && device < waiting) ? device : waiting;
    if (lowest != w->comm->rank)
        return;
    char names[640];
    mm_probe_names(w->probe, MM_RANK_BUSY, names, sizeof names);
    mm_log_any_rank(w->plan.log,
                    "%d of %d ranks have waited %.0f s for %s, "
                    "still at work",
                    mm_probe_count(w->probe, MM_RANK_WAITING) +
                        mm_probe_count(w->probe, MM_RANK_DEVICE_BUSY),
                    w->comm->n_ranks, waited_s, names);
}

mm_status mm_watch_diagnose(mm_watch *w, double waited_s)
{
    const mm_probe *p = w->probe;
    if (mm_probe_count(p, MM_RANK_SILENT) > 0)
        return fail_naming(w, MM_RANK_SILENT, "stuck or dead", waited_s);
    if (!mm_probe_is_coordinator(p)) /* knows of too few to say more */
        return MM_OK;
    if (mm_probe_count(p, MM_RANK_BUSY) > 0) {
        log_wait(w, waited_s);
        return MM_OK;
    }
    if (!mm_probe_is_deadlock(p))
        return MM_OK;
    if (mm_probe_count(p, MM_RANK_DEVICE_BUSY) > 0)
        return fail_naming(w, MM_RANK_DEVICE_BUSY, "its device does not finish",
                           waited_s);
    return fail_naming(w, MM_RANK_WAITING, "all wait for each other", waited_s);
}

mm_status mm_watch_explain(mm_watch *w, mm_status st)
{
    char why[1024], names[640];
    if (st != MM_E_COMM || mm_probe_reporter(w->probe) >= 0)
        return st;
    snprintf(why, sizeof why, "%s", mm_fail_message());
    MM_TRY(mm_probe_start(w->probe, MM_RANK_WAITING));
    MM_TRY(mm_watch_serve_for(w, explain_s));
    mm_probe_names(w->probe, MM_RANK_SILENT, names, sizeof names);
    if (!*names)
        return mm_fail(st, "rank %d: %s", w->comm->rank, why);
    MM_TRY(elect_reporter(w));
    return mm_fail(st, "%s: stuck or dead (error of rank %d: %s)", names,
                   w->comm->rank, why);
}
