/* The output's elements in order, read from the inputs on demand; tensors to
 * transpose or resize are made whole in memory. */

#include "src/convert/stream.h"

#include "src/model/positions.h"

#include <stdlib.h>
#include <string.h>

struct mm_convert_stream {
    const mm_convert_inputs *inputs;
    const mm_convert_plan *plan;
    float *whole, *other; /* a tensor that is made as a whole, and scratch */
    int whole_of;         /* tensor of the output, or -1 */
};

static const mm_tensor *stored_tensor(const mm_convert_stream *s,
                                      const mm_convert_origin *origin, int part)
{
    const mm_weights *weights = s->inputs->sources[origin->source].weights;
    return &mm_weights_table(weights)->tensors[origin->stored.tensors[part]];
}

static bool is_made_whole(const mm_convert_stream *s, int target)
{
    const mm_convert_target *t = &s->plan->targets[target];
    const mm_convert_origin *origin = &s->plan->origins[t->ours];
    return t->transposed || origin->stored.transposed || origin->resized;
}

/** The largest tensor that is made as a whole, before or after. */
static int64_t largest_whole(const mm_convert_stream *s)
{
    int64_t most = 1;
    for (int i = 0; i < s->plan->output.n_tensors; i++) {
        if (!is_made_whole(s, i))
            continue;
        const mm_convert_origin *origin =
            &s->plan->origins[s->plan->targets[i].ours];
        int64_t before = stored_tensor(s, origin, 0)->n_elems;
        int64_t after = s->plan->output.tensors[i].n_elems;
        most = before > most ? before : most;
        most = after > most ? after : most;
    }
    return most;
}

mm_status mm_convert_stream_create(const mm_convert_inputs *inputs,
                                   const mm_convert_plan *plan,
                                   mm_convert_stream **stream)
{
    mm_convert_stream *s = calloc(1, sizeof *s);
    *stream = s;
    if (!s)
        return mm_fail(MM_E_MEMORY, "no memory for a conversion");
    s->inputs = inputs;
    s->plan = plan;
    s->whole_of = -1;
    size_t n_elems = (size_t)largest_whole(s);
    s->whole = malloc(n_elems * sizeof *s->whole);
    s->other = malloc(n_elems * sizeof *s->other);
    if (!s->whole || !s->other) {
        mm_convert_stream_destroy(stream);
        return mm_fail(MM_E_MEMORY, "no memory for a conversion");
    }
    return MM_OK;
}

void mm_convert_stream_destroy(mm_convert_stream **stream)
{
    if (!*stream)
        return;
    free((*stream)->whole);
    free((*stream)->other);
    free(*stream);
    *stream = NULL;
}

/** Elements [first, first + n) of an untouched tensor of ours. */
static mm_status read_rows(const mm_convert_stream *s,
                           const mm_convert_origin *origin, int64_t first,
                           int64_t n, float *out)
{
    mm_weights *weights = s->inputs->sources[origin->source].weights;
    for (int part = 0; part < origin->stored.n_parts && n > 0; part++) {
        const mm_tensor *tensor = stored_tensor(s, origin, part);
        if (first >= tensor->n_elems) {
            first -= tensor->n_elems;
            continue;
        }
        int64_t here = tensor->n_elems - first;
        here = here < n ? here : n;
        int64_t at = tensor->off_elems + first;
        MM_TRY(mm_weights_read(weights, at, at + here, out));
        out += here;
        n -= here;
        first = 0;
    }
    return MM_OK;
}

static void transpose(const float *in, int64_t n_rows, int64_t n_columns,
                      float *out)
{
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = 0; j < n_columns; j++)
            out[j * n_rows + i] = in[i * n_columns + j];
}

static void swap(mm_convert_stream *s)
{
    float *kept = s->whole;
    s->whole = s->other;
    s->other = kept;
}

static mm_status make_whole(mm_convert_stream *s, int target)
{
    const mm_convert_target *t = &s->plan->targets[target];
    const mm_convert_origin *origin = &s->plan->origins[t->ours];
    const mm_tensor *ours = &s->plan->ours.tensors[t->ours];
    const mm_tensor *stored = stored_tensor(s, origin, 0);
    /* Only whole tensors of two dimensions are transposed or resized. */
    MM_ASSERT(origin->stored.n_parts == 1 && stored->n_dims == 2);
    s->whole_of = -1;
    MM_TRY(read_rows(s, origin, 0, stored->n_elems, s->whole));
    if (origin->resized) {
        int64_t from = mm_positions_grid(stored->shape[0]);
        int64_t to = mm_positions_grid(ours->shape[0]);
        MM_TRY(
            mm_positions_resize(s->whole, from, to, ours->shape[1], s->other));
        swap(s);
    }
    /* Transposed on both sides: nothing to do. */
    if (origin->stored.transposed != t->transposed) {
        bool in = origin->stored.transposed;
        transpose(s->whole, ours->shape[in], ours->shape[!in], s->other);
        swap(s);
    }
    s->whole_of = target;
    return MM_OK;
}

/** Elements [first, first + n) of a tensor of the output. */
static mm_status read_target(mm_convert_stream *s, int target, int64_t first,
                             int64_t n, float *out)
{
    const mm_convert_target *t = &s->plan->targets[target];
    if (!is_made_whole(s, target))
        return read_rows(s, &s->plan->origins[t->ours], t->first_elem + first,
                         n, out);
    if (s->whole_of != target)
        MM_TRY(make_whole(s, target));
    memcpy(out, s->whole + first, (size_t)n * sizeof *out);
    return MM_OK;
}

mm_status mm_convert_stream_read(mm_convert_stream *stream, int64_t lo,
                                 int64_t hi, float *out)
{
    const mm_tensor_table *table = &stream->plan->output;
    while (lo < hi) {
        int i = mm_tensor_table_at(table, lo);
        const mm_tensor *tensor = &table->tensors[i];
        int64_t end = tensor->off_elems + tensor->n_elems;
        end = end < hi ? end : hi;
        MM_TRY(read_target(stream, i, lo - tensor->off_elems, end - lo, out));
        out += end - lo;
        lo = end;
    }
    return MM_OK;
}
