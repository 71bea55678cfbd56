/* Which tensors a merge folds and which it copies, decided from the files'
 * tables, and each rank's share. */

#include "src/merge/merge_plan.h"

#include "src/base/fnv.h"

#include <stdlib.h>
#include <string.h>

static mm_status fail_shape(const mm_merge_source *input, const mm_tensor *have,
                            const mm_merge_source *pretrained,
                            const mm_tensor *want)
{
    char have_text[192], want_text[192];
    mm_tensor_shape_text(have, have_text);
    mm_tensor_shape_text(want, want_text);
    return mm_fail(MM_E_FORMAT,
                   "%.600s: tensor %.200s has shape %s, but %s in %.600s: "
                   "another architecture",
                   input->path, have->name, have_text, want_text,
                   pretrained->path);
}

/** An input may hold only what the pre-trained file holds, in its shape. */
static mm_status check_input(const mm_merge_source *input,
                             const mm_merge_source *pretrained)
{
    for (int i = 0; i < input->table->n_tensors; i++) {
        const mm_tensor *have = &input->table->tensors[i];
        int at = mm_tensor_table_find(pretrained->table, have->name);
        if (at < 0)
            return mm_fail(MM_E_FORMAT,
                           "%.600s: tensor %.200s is not in the pre-trained "
                           "file %.600s",
                           input->path, have->name, pretrained->path);
        const mm_tensor *want = &pretrained->table->tensors[at];
        if (!mm_tensor_same_shape(have, want))
            return fail_shape(input, have, pretrained, want);
    }
    return MM_OK;
}

/** Whether the inputs hold a tensor: all of them, or, but for visual.* tensors,
 * none. */
static mm_status decide(const mm_tensor *tensor,
                        const mm_merge_source *pretrained,
                        const mm_merge_source *inputs, int n_inputs,
                        bool *folded)
{
    const mm_merge_source *holder = NULL, *lacking = NULL;
    for (int i = 0; i < n_inputs; i++) {
        bool held = mm_tensor_table_find(inputs[i].table, tensor->name) >= 0;
        const mm_merge_source **first = held ? &holder : &lacking;
        if (!*first)
            *first = &inputs[i];
    }
    *folded = holder != NULL;
    if (!lacking)
        return MM_OK;
    if (mm_tensor_is_visual(tensor))
        return mm_fail(MM_E_FORMAT,
                       "%.600s: tensor %.200s is missing; %.600s has it",
                       lacking->path, tensor->name, pretrained->path);
    if (holder)
        return mm_fail(MM_E_FORMAT,
                       "%.600s: tensor %.200s is missing, but %.600s has it: "
                       "all inputs must hold it, or none",
                       lacking->path, tensor->name, holder->path);
    return MM_OK;
}

static void append(mm_merge_plan *plan, const mm_tensor *tensor, bool folded)
{
    mm_merge_run *last = plan->n_runs ? &plan->runs[plan->n_runs - 1] : NULL;
    if (plan->n_runs == 0 || last->folded != folded) {
        last = &plan->runs[plan->n_runs++];
        last->lo = tensor->off_elems;
        last->folded_lo = plan->folded.n_elems;
        last->folded = folded;
    }
    last->hi = tensor->off_elems + tensor->n_elems;
}

mm_status mm_merge_plan_init(mm_merge_plan *plan,
                             const mm_merge_source *pretrained,
                             const mm_merge_source *inputs, int n_inputs)
{
    plan->output = pretrained->table;
    plan->n_inputs = n_inputs;
    for (int i = 0; i < n_inputs; i++)
        MM_TRY(check_input(&inputs[i], pretrained));

    int n_tensors = plan->output->n_tensors;
    plan->runs = calloc((size_t)n_tensors + 1, sizeof *plan->runs);
    if (!plan->runs)
        return mm_fail(MM_E_MEMORY, "no memory for the plan of a merge");
    for (int i = 0; i < n_tensors; i++) {
        const mm_tensor *tensor = &plan->output->tensors[i];
        bool folded;
        MM_TRY(decide(tensor, pretrained, inputs, n_inputs, &folded));
        append(plan, tensor, folded);
        if (folded)
            MM_TRY(mm_tensor_table_add(&plan->folded, tensor->name,
                                       tensor->n_dims, tensor->shape));
    }
    if (plan->folded.n_tensors == 0)
        return mm_fail(MM_E_FORMAT, "%.600s: there is no tensor to merge",
                       n_inputs ? inputs[0].path : pretrained->path);
    return MM_OK;
}

void mm_merge_plan_clear(mm_merge_plan *plan)
{
    mm_tensor_table_clear(&plan->folded);
    free(plan->runs);
    *plan = (mm_merge_plan){0};
}

/** Numbers read and written for one element of a run. */
static int64_t unit_cost(const mm_merge_plan *plan, const mm_merge_run *run)
{
    return run->folded ? plan->n_inputs + 2 : 2;
}

/** The element whose predecessors together cost `cost`, rounded down. */
static int64_t element_at(const mm_merge_plan *plan, int64_t cost)
{
    for (int i = 0; i < plan->n_runs; i++) {
        const mm_merge_run *run = &plan->runs[i];
        int64_t unit = unit_cost(plan, run);
        int64_t run_cost = (run->hi - run->lo) * unit;
        if (cost < run_cost)
            return run->lo + cost / unit;
        cost -= run_cost;
    }
    return plan->output->n_elems;
}

mm_range mm_merge_plan_range(const mm_merge_plan *plan, int rank, int n_ranks)
{
    int64_t total = 0;
    for (int i = 0; i < plan->n_runs; i++)
        total += (plan->runs[i].hi - plan->runs[i].lo) *
                 unit_cost(plan, &plan->runs[i]);
    /* Both ends go through one function, so that the ranges meet. */
    mm_range costs = mm_partition(total, rank, n_ranks);
    mm_range range = {element_at(plan, costs.lo), element_at(plan, costs.hi)};
    return range;
}

static uint64_t mix_table(uint64_t hash, const mm_tensor_table *table)
{
    for (int i = 0; i < table->n_tensors; i++) {
        const mm_tensor *tensor = &table->tensors[i];
        hash = mm_fnv(hash, tensor->name, (int64_t)strlen(tensor->name));
        hash = mm_fnv(hash, tensor->shape,
                      tensor->n_dims * (int64_t)sizeof tensor->shape[0]);
    }
    return hash;
}

uint64_t mm_merge_plan_fingerprint(const mm_merge_plan *plan)
{
    uint64_t hash = mix_table(MM_FNV_BEGIN, plan->output);
    return mm_fnv(mix_table(hash, &plan->folded), &plan->n_inputs,
                  sizeof plan->n_inputs);
}
