/* A head from texts: prompts filled with class names, encoded, averaged for
 * each class and scaled. */

#include "src/eval/zero_shot.h"

#include "comm/check_same.h"
#include "comm/partition.h"
#include "src/base/names.h"
#include "src/model/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts ------------------------------------------------------------- */

/** `prompt` with `name` wherever it has {}; NULL without memory. */
static char *fill_in(const char *prompt, const char *name)
{
    size_t n_bytes = strlen(prompt) + 1, name_bytes = strlen(name);
    for (const char *at = prompt; (at = strstr(at, "{}")); at += 2)
        n_bytes += name_bytes;
    char *text = malloc(n_bytes);
    char *out = text;
    while (text && *prompt) {
        const char *hole = strstr(prompt, "{}");
        size_t plain = hole ? (size_t)(hole - prompt) : strlen(prompt);
        out = mempcpy(out, prompt, plain);
        prompt += plain;
        if (hole) {
            out = mempcpy(out, name, name_bytes);
            prompt += 2;
        }
    }
    if (text)
        *out = '\0';
    return text;
}

/** Every prompt of the classes [lo, hi). */
static mm_status make_texts(const mm_zero_shot_plan *p, mm_range classes,
                            mm_texts *texts)
{
    int64_t n_ids = p->model->config.text.n_tokens;
    int32_t *ids = malloc((size_t)n_ids * sizeof *ids);
    mm_status st =
        ids ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for a text's ids");
    for (int64_t c = classes.lo; st == MM_OK && c < classes.hi; c++)
        for (int64_t i = 0; st == MM_OK && i < p->n_prompts; i++) {
            char *text = fill_in(p->prompts[i], p->class_names[c]);
            st = text ? mm_tokenizer_encode(p->tokenizer, text, n_ids, ids)
                      : mm_fail(MM_E_MEMORY, "no memory for a prompt");
            if (st == MM_OK)
                st = mm_texts_add(texts, ids, n_ids);
            else
                mm_fail_within(st, "class %lld, prompt %lld", (long long)c + 1,
                               (long long)i + 1);
            free(text);
        }
    free(ids);
    return st;
}

/* ---- means ------------------------------------------------------------- */

typedef struct sums {
    const mm_zero_shot_plan *plan;
    int64_t embed_dim, first_class;
    double *rows;      /* [n_classes, embed_dim]; other ranks' classes 0 */
    double *direction; /* [embed_dim] */
} sums;

static mm_status take(void *context, int64_t i, const float *features)
{
    sums *s = context;
    int64_t n_prompts = s->plan->n_prompts;
    int64_t class = s->first_class + i / n_prompts;
    for (int64_t j = 0; j < s->embed_dim; j++)
        s->direction[j] = features[j];
    if (!mm_head_set_length(s->direction, s->embed_dim, 1))
        return mm_fail(MM_E_VALUE,
                       "prompt %lld of class '%.80s' has features of length 0 "
                       "or infinity",
                       (long long)(i % n_prompts) + 1,
                       s->plan->class_names[class]);
    double *row = s->rows + class * s->embed_dim;
    for (int64_t j = 0; j < s->embed_dim; j++)
        row[j] += s->direction[j];
    return MM_OK;
}

static mm_status choose_scale(const mm_zero_shot_plan *p, double *scale)
{
    double log_scale =
        *mm_params_text(&p->model->config, p->model->theta).logit_scale;
    *scale = p->scale > 0 ? p->scale : exp(log_scale);
    if (!isfinite((float)*scale) || !(*scale > 0))
        return mm_fail(MM_E_VALUE,
                       "logit_scale is %g in the weights, which gives no "
                       "usable scale; give --scale",
                       log_scale);
    return MM_OK;
}

static mm_status finish(const sums *s, mm_head *head)
{
    const mm_zero_shot_plan *p = s->plan;
    double scale;
    MM_TRY(choose_scale(p, &scale));
    MM_TRY(mm_head_init(p->n_classes, s->embed_dim, head));
    MM_TRY(mm_names_copy(p->class_names, p->n_classes, &head->class_names));
    MM_TRY(mm_names_copy(p->prompts, p->n_prompts, &head->prompts));
    head->n_prompts = p->n_prompts;
    for (int64_t c = 0; c < p->n_classes; c++) {
        double *row = s->rows + c * s->embed_dim;
        if (!mm_head_set_length(row, s->embed_dim, scale))
            return mm_fail(MM_E_VALUE,
                           "the prompts of class '%.80s' cancel each other",
                           p->class_names[c]);
        for (int64_t j = 0; j < s->embed_dim; j++)
            head->weight[c * s->embed_dim + j] = (float)row[j];
    }
    return MM_OK;
}

static mm_status check_texts(mm_comm *comm, const char *const *texts, int64_t n)
{
    for (int64_t i = 0; MAGMAX_CHECK_COLLECTIVES && i < n; i++)
        MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(texts[i])));
    return MM_OK;
}

mm_status mm_head_init_zero_shot(const mm_zero_shot_plan *plan, mm_head *head,
                                 mm_encode_texts_work *work)
{
    MM_TRY(MM_CHECK_SAME(plan->comm, MM_SAME_INT(plan->n_classes),
                         MM_SAME_INT(plan->n_prompts),
                         MM_SAME_REAL(plan->scale)));
    MM_TRY(check_texts(plan->comm, plan->class_names, plan->n_classes));
    MM_TRY(check_texts(plan->comm, plan->prompts, plan->n_prompts));
    mm_range mine = mm_partition(plan->n_classes, mm_comm_rank(plan->comm),
                                 mm_comm_n_ranks(plan->comm));
    int64_t embed_dim = plan->model->config.embed_dim;
    sums s = {.plan = plan, .embed_dim = embed_dim, .first_class = mine.lo};
    mm_texts texts = {0};
    mm_status st = MM_OK;
    s.rows = calloc((size_t)(plan->n_classes * embed_dim) + 1, sizeof *s.rows);
    s.direction = malloc((size_t)embed_dim * sizeof *s.direction);
    if (!s.rows || !s.direction)
        st = mm_fail(MM_E_MEMORY, "no memory for class means");
    if (st == MM_OK)
        st = make_texts(plan, mine, &texts);
    MM_TRY_GOTO(st, done, mm_comm_agree(plan->comm, st));
    mm_encode_texts_plan encode = {
        .comm = plan->comm,
        .log = plan->log,
        .device = plan->device,
        .model = plan->model,
        .texts = &texts,
        .batch_tokens = plan->batch_tokens,
        .take = take,
        .context = &s,
    };
    MM_TRY_GOTO(st, done, mm_encode_texts(&encode, work));
    MM_TRY_GOTO(
        st, done,
        mm_comm_sum_double(plan->comm, s.rows, plan->n_classes * embed_dim));
    st = mm_comm_agree(plan->comm, finish(&s, head));
done:
    mm_texts_clear(&texts);
    free(s.rows);
    free(s.direction);
    if (st != MM_OK)
        mm_head_clear(head);
    return st;
}
