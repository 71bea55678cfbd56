/* The JSON of a merge, for the output's provenance and for --json, and the
 * lines on each task's share. */

#include "src/merge/merge_report.h"

#include "src/base/utf8.h"

#include <stdlib.h>

/** Of the folded elements, the share that a task won. */
static double share_won(const mm_merge_result *result, int task)
{
    return result->n_elems
               ? (double)result->n_won[task] / (double)result->n_elems
               : 0;
}

/** An array of shares; empty where the method does not pick. */
static json_t *shares(const mm_merge_request *request,
                      const mm_merge_result *result)
{
    json_t *array = json_array();
    for (int i = 0; request->method->picks_winner && i < request->n_inputs; i++)
        json_array_append_new(array, json_real(share_won(result, i)));
    return array;
}

static json_t *paths(const mm_merge_request *request)
{
    json_t *array = json_array();
    for (int i = 0; i < request->n_inputs; i++)
        if (json_array_append_new(array, mm_utf8_json(request->inputs[i]))) {
            json_decref(array);
            return NULL;
        }
    return array;
}

/** Takes `object`, which may be NULL. */
static mm_status write_json(json_t *object, size_t flags, char **text)
{
    *text = object ? json_dumps(object, flags) : NULL;
    json_decref(object);
    return *text ? MM_OK
                 : mm_fail(MM_E_MEMORY, "no memory for a report of the merge");
}

mm_status mm_merge_provenance(const mm_merge_request *request,
                              const mm_merge_result *result, char **text)
{
    json_t *object = json_pack(
        "{ss, ss, ss, sf, so, so, sI, so}", "program", "magmax_merge",
        "version", MAGMAX_VERSION, "method", request->method->name,
        "scaling_coef", request->coef, "pretrained",
        mm_utf8_json(request->pretrained), "inputs", paths(request), "n_elems",
        (json_int_t)result->n_elems, "share_won", shares(request, result));
    /* json_pack has no way to share what is const. */
    if (object && request->options &&
        json_object_set_new(object, "options",
                            json_deep_copy(request->options))) {
        json_decref(object);
        object = NULL;
    }
    return write_json(object, JSON_INDENT(2), text);
}

mm_status mm_merge_report(const mm_merge_request *request,
                          const mm_merge_result *result, char **text)
{
    json_t *object = json_pack(
        "{ss, sf, sI, so, so}", "method", request->method->name, "scaling_coef",
        request->coef, "n_elems", (json_int_t)result->n_elems, "share_won",
        shares(request, result), "output", mm_utf8_json(request->output));
    return write_json(object, 0, text);
}

void mm_merge_log_shares(mm_log *log, const mm_merge_request *request,
                         const mm_merge_result *result)
{
    if (!request->method->picks_winner)
        return;
    mm_log_line(log, "share of the %lld merged weights that each task won:",
                (long long)result->n_elems);
    for (int i = 0; i < request->n_inputs; i++)
        mm_log_line(log, "  %6.2f %%  %s", 100 * share_won(result, i),
                    request->inputs[i]);
}
