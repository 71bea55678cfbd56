#ifndef MAGMAX_SRC_MERGE_MERGE_REPORT_H
#define MAGMAX_SRC_MERGE_MERGE_REPORT_H

#include "src/merge/merge.h"

/**
 * How a merge came about, for the output's provenance: JSON text with program,
 * version, method, coefficient, files, options and what each task won. The
 * number of ranks is not in it, since it changes nothing.
 *
 * Memory   Gives *text (free).
 * Ranks    Local.
 * Errors   MM_E_MEMORY.
 */
mm_status mm_merge_provenance(const mm_merge_request *request,
                              const mm_merge_result *result, char **text);

/** The one JSON document of --json, likewise. */
mm_status mm_merge_report(const mm_merge_request *request,
                          const mm_merge_result *result, char **text);

/** A line for people on how much each task won; nothing where the method does
 * not pick. */
void mm_merge_log_shares(mm_log *log, const mm_merge_request *request,
                         const mm_merge_result *result);

#endif
