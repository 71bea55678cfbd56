/* Two heads that need no texts: the mean features of each class, and random
 * orthonormal rows. */

#include "src/eval/prototypes.h"

#include "comm/check_same.h"
#include "src/base/rng.h"

#include <stdlib.h>

/* ---- class means ------------------------------------------------------- */

typedef struct sums {
    const mm_half *half;
    int64_t embed_dim;
    double *rows;      /* [n_classes, embed_dim] */
    double *direction; /* [embed_dim] */
} sums;

static mm_status take(void *context, const mm_encoded *encoded)
{
    sums *s = context;
    for (int64_t i = 0; i < encoded->n; i++) {
        for (int64_t j = 0; j < s->embed_dim; j++)
            s->direction[j] = encoded->features[i * s->embed_dim + j];
        if (!mm_head_set_length(s->direction, s->embed_dim, 1))
            return mm_fail(MM_E_VALUE, "image %lld has features of length 0",
                           (long long)encoded->samples[i]);
        double *row =
            s->rows + s->half->labels[encoded->samples[i]] * s->embed_dim;
        for (int64_t j = 0; j < s->embed_dim; j++)
            row[j] += s->direction[j];
    }
    return MM_OK;
}

static mm_status finish(sums *s, int64_t n_classes, double scale, mm_head *head)
{
    MM_TRY(mm_head_init(n_classes, s->embed_dim, head));
    for (int64_t c = 0; c < n_classes; c++) {
        double *row = s->rows + c * s->embed_dim;
        if (!mm_head_set_length(row, s->embed_dim, scale))
            return mm_fail(MM_E_VALUE,
                           "class %lld has no training images to average",
                           (long long)c);
        for (int64_t j = 0; j < s->embed_dim; j++)
            head->weight[c * s->embed_dim + j] = (float)row[j];
    }
    return MM_OK;
}

mm_status mm_head_init_prototypes(const mm_encode_plan *plan,
                                  const mm_task *task, double scale,
                                  mm_head *head)
{
    MM_TRY(MM_CHECK_SAME(plan->comm, MM_SAME_INT(task->n_classes),
                         MM_SAME_REAL(scale)));
    int64_t n_classes = task->n_classes;
    sums s = {.half = plan->half, .embed_dim = plan->model->config.embed_dim};
    mm_status st = MM_OK;
    s.rows = calloc((size_t)(n_classes * s.embed_dim), sizeof *s.rows);
    s.direction = calloc((size_t)s.embed_dim, sizeof *s.direction);
    if (!s.rows || !s.direction)
        st = mm_fail(MM_E_MEMORY, "no memory for class means");
    MM_TRY_GOTO(st, done, mm_comm_agree(plan->comm, st));
    mm_encode_plan encode = *plan;
    encode.head = NULL;
    encode.samples = task->train;
    encode.n_samples = task->n_train;
    encode.take = take;
    encode.context = &s;
    MM_TRY_GOTO(st, done, mm_encode(&encode));
    MM_TRY_GOTO(
        st, done,
        mm_comm_sum_double(plan->comm, s.rows, n_classes * s.embed_dim));
    st = finish(&s, n_classes, scale, head);
done:
    free(s.rows);
    free(s.direction);
    return st;
}

/* ---- orthonormal rows -------------------------------------------------- */

mm_status mm_head_init_orthonormal(int64_t n_classes, int64_t embed_dim,
                                   double scale, uint64_t seed, mm_head *head)
{
    if (n_classes > embed_dim)
        return mm_fail(MM_E_ARG,
                       "%lld classes cannot be orthogonal in embed_dim %lld",
                       (long long)n_classes, (long long)embed_dim);
    double *rows = calloc((size_t)(n_classes * embed_dim), sizeof *rows);
    if (!rows)
        return mm_fail(MM_E_MEMORY, "no memory for a head");
    mm_rng_key key = mm_rng_key_of(seed, MM_RNG_HEAD);
    for (int64_t c = 0; c < n_classes; c++) {
        double *row = rows + c * embed_dim;
        for (int64_t j = 0; j < embed_dim; j++)
            row[j] = mm_rng_normal(key, (uint64_t)j, (uint64_t)c);
        /* Gram-Schmidt, twice: once leaves rounding errors. */
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t k = 0; k < c; k++) {
                double dot = 0;
                for (int64_t j = 0; j < embed_dim; j++)
                    dot += row[j] * rows[k * embed_dim + j];
                for (int64_t j = 0; j < embed_dim; j++)
                    row[j] -= dot * rows[k * embed_dim + j];
            }
            mm_head_set_length(row, embed_dim, 1);
        }
    }
    mm_status st = mm_head_init(n_classes, embed_dim, head);
    for (int64_t i = 0; st == MM_OK && i < n_classes * embed_dim; i++)
        head->weight[i] = (float)(scale * rows[i]);
    free(rows);
    return st;
}
