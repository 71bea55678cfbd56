/* What bench/gpu/op_times.c times: each op of a training step and of merging,
 * with the bytes that it must move and the operations that it must do. */
#include "bench/gpu/op_times.h"
#include "src/model/vit.h"

/* ---- a training step, in its order -------------------------------------- */

static mm_status patchify(const op_rig *r)
{
    return r->ops->patchify(r->stream, r->wide, r->images, r->B,
                            r->config.image_size, r->config.patch_size,
                            mm_pixel_mean, mm_pixel_deviation);
}

static mm_status patch_embedding(const op_rig *r)
{
    return r->ops->linear(r->stream, r->y, r->wide, r->weights, NULL, NULL,
                          r->patches, r->pixels, r->C);
}

static mm_status embed_tokens(const op_rig *r)
{
    return r->ops->embed_tokens(r->stream, r->x, r->y, r->theta, r->theta, r->B,
                                r->T, r->C);
}

static mm_status layernorm(const op_rig *r)
{
    return r->ops->layernorm(r->stream, r->y, r->mean, r->rstd, r->x, r->C,
                             r->theta, r->theta, 1e-5f, r->rows, r->C);
}

static mm_status qkv(const op_rig *r)
{
    return r->ops->linear(r->stream, r->qkv, r->x, r->weights, r->weights, NULL,
                          r->rows, r->C, 3 * r->C);
}

static mm_status attention(const op_rig *r)
{
    return r->ops->attention(r->stream, r->y, r->lse, r->qkv, false, r->B, r->T,
                             r->C, r->H);
}

static mm_status out(const op_rig *r)
{
    return r->ops->linear(r->stream, r->y, r->x, r->weights, r->weights, r->z,
                          r->rows, r->C, r->C);
}

static mm_status mlp_up(const op_rig *r)
{
    return r->ops->linear_act(r->stream, r->wide, r->wide2, r->x, r->weights,
                              r->weights, r->config.image.activation, r->rows,
                              r->C, r->F);
}

static mm_status mlp_down(const op_rig *r)
{
    return r->ops->linear(r->stream, r->y, r->wide, r->weights, r->weights,
                          r->z, r->rows, r->F, r->C);
}

static mm_status loss(const op_rig *r)
{
    MM_TRY(r->ops->normalized_logits(r->stream, r->logits, r->inv_norm,
                                     r->features, r->theta, r->B, r->E, r->K));
    MM_TRY(r->ops->softmax_cross_entropy(
        r->stream, r->sum, r->dlogits, r->logits, r->labels, 0, 1, r->B, r->K));
    return r->ops->normalized_logits_grad(r->stream, r->grad, r->dlogits,
                                          r->features, r->inv_norm, r->theta,
                                          r->B, r->E, r->K);
}

/** Where the gradient of a bias goes: with dy, or with the weight's gradient.
 */
static float *with_dy(const op_rig *r)
{
    return mm_device_sums_with_gradients(r->device) ? r->m + r->F : NULL;
}

static float *with_dw(const op_rig *r)
{
    return mm_device_sums_with_gradients(r->device) ? NULL : r->m;
}

static mm_status mlp_down_grad_input(const op_rig *r)
{
    return r->ops->linear_grad_act(
        r->stream, r->wide, with_dy(r), r->x, r->weights, r->wide2,
        r->config.image.activation, false, r->rows, r->F, r->C);
}

static mm_status mlp_down_grad_weight(const op_rig *r)
{
    return r->ops->linear_grad_weight(r->stream, r->grad, with_dw(r), r->x,
                                      r->wide, false, r->rows, r->F, r->C);
}

static mm_status mlp_up_grad_input(const op_rig *r)
{
    return r->ops->linear_grad_input(r->stream, r->y, r->wide, r->weights,
                                     r->rows, r->C, r->F);
}

static mm_status mlp_up_grad_weight(const op_rig *r)
{
    return r->ops->linear_grad_weight(r->stream, r->grad, with_dw(r), r->wide,
                                      r->x, false, r->rows, r->C, r->F);
}

static mm_status layernorm_grad(const op_rig *r)
{
    return r->ops->layernorm_grad(r->stream, r->z, r->grad, r->m, with_dy(r),
                                  r->z, r->y, r->x, r->C, r->mean, r->rstd,
                                  r->theta, false, r->rows, r->C);
}

static mm_status out_grad_input(const op_rig *r)
{
    return r->ops->linear_grad_input(r->stream, r->y, r->x, r->weights, r->rows,
                                     r->C, r->C);
}

static mm_status out_grad_weight(const op_rig *r)
{
    return r->ops->linear_grad_weight(r->stream, r->grad, with_dw(r), r->x,
                                      r->y, false, r->rows, r->C, r->C);
}

static mm_status attention_grad(const op_rig *r)
{
    return r->ops->attention_grad(r->stream, r->dqkv, with_dy(r), r->x, r->y,
                                  r->lse, r->qkv, false, false, r->B, r->T,
                                  r->C, r->H);
}

static mm_status qkv_grad_input(const op_rig *r)
{
    return r->ops->linear_grad_input(r->stream, r->y, r->dqkv, r->weights,
                                     r->rows, r->C, 3 * r->C);
}

static mm_status qkv_grad_weight(const op_rig *r)
{
    return r->ops->linear_grad_weight(r->stream, r->grad, with_dw(r), r->dqkv,
                                      r->x, false, r->rows, r->C, 3 * r->C);
}

static mm_status embed_tokens_grad(const op_rig *r)
{
    return r->ops->embed_tokens_grad(r->stream, r->y, r->grad, r->m, r->x,
                                     false, r->B, r->T, r->C);
}

static mm_status patch_embedding_grad(const op_rig *r)
{
    return r->ops->linear_grad_weight(r->stream, r->grad, NULL, r->y, r->wide,
                                      false, r->patches, r->pixels, r->C);
}

static mm_status sum_squares(const op_rig *r)
{
    return r->ops->sum_squares(r->stream, r->sum, r->grad, r->N);
}

static mm_status adamw(const op_rig *r)
{
    const mm_adamw step = {.lr = 1e-6f,
                           .beta1 = 0.9f,
                           .beta2 = 0.999f,
                           .eps = 1e-8f,
                           .weight_decay = 0.1f,
                           .bias1 = 0.1f,
                           .bias2 = 0.001f,
                           .clip = 1,
                           .grad_squares = r->sum};
    return r->ops->adamw(r->stream, r->theta, r->m, r->v, r->theta_low, r->grad,
                         &step, r->N);
}

/* ---- beside a step, and merging ----------------------------------------- */

static mm_status float_to_act(const op_rig *r)
{
    return r->ops->float_to_act(r->stream, r->weights, r->grad, r->N);
}

static mm_status fold_fisher(const op_rig *r)
{
    return r->ops->fold_fisher(r->stream, r->v, r->grad, 0.5f, 0.5f, r->N);
}

static mm_status ewc_penalty(const op_rig *r)
{
    return r->ops->ewc_penalty(r->stream, r->sum, r->grad, r->theta, r->m, r->v,
                               1e-6f, r->N);
}

static mm_status count_nonfinite(const op_rig *r)
{
    return r->ops->count_nonfinite(r->stream, r->count, r->grad, r->N);
}

static mm_status max_magnitude(const op_rig *r)
{
    return r->ops->max_magnitude(r->stream, r->m, r->winner, r->theta, r->grad,
                                 1, r->N);
}

static mm_status random_delta(const op_rig *r)
{
    return r->ops->random_delta(r->stream, r->m, r->winner, r->theta, r->grad,
                                1, 10, 1, 0, r->N);
}

static mm_status add_delta(const op_rig *r)
{
    return r->ops->add_delta(r->stream, r->m, r->theta, r->grad, r->N);
}

static mm_status add_scaled(const op_rig *r)
{
    return r->ops->add_scaled(r->stream, r->v, r->theta, r->m, 10, 0.5f, r->N);
}

/* ---- the table ---------------------------------------------------------- */

int op_cases(const op_rig *r, op_case cases[MOST_CASES])
{
    const double a = (double)r->a, N = (double)r->N, L = (double)r->L;
    const double rows = (double)r->rows, C = (double)r->C, F = (double)r->F;
    const double patches = (double)r->patches, pixels = (double)r->pixels;
    const double x = a * rows * C, wide = a * rows * F; /* bytes */
    const double lse = 4 * rows * (double)r->H, rms = 8 * rows;
    const double columns = a * patches * pixels, embedded = a * patches * C;
    const double image = 3.0 * (double)r->B * (double)r->config.image_size *
                         (double)r->config.image_size;
    const double w_out = C * C, w_qkv = 3 * w_out, w_mlp = C * F;
    const double w_patch = C * pixels, scores = rows * (double)r->T * C;
    const double theta_low = r->theta_low ? a * N : 0;
    const double classes = 4 * (double)r->K * (double)r->E;
    /* The last block's second half works on class tokens alone. */
    const double most = L - 1;
    const op_case all[] = {
        {"patchify", 1, image + columns, 0, patchify},
        {"patch embedding", 1, columns + embedded + a * w_patch,
         2 * patches * w_patch, patch_embedding},
        {"embed_tokens", 1, embedded + x, 0, embed_tokens},
        {"layernorm", 2 * L, 2 * x + rms, 0, layernorm},
        {"qkv", L, 4 * x + a * w_qkv, 2 * rows * w_qkv, qkv},
        {"attention", L, 4 * x + lse, 4 * scores, attention},
        {"out", most, 3 * x + a * w_out, 2 * rows * w_out, out},
        {"MLP up, activation", most, x + 2 * wide + a * w_mlp, 2 * rows * w_mlp,
         mlp_up},
        {"MLP down", most, 2 * x + wide + a * w_mlp, 2 * rows * w_mlp,
         mlp_down},
        {"head and loss", 1, 2 * classes, 4 * (double)r->B * classes / 4, loss},
        {"MLP down, input and activation gradient", most,
         x + 2 * wide + a * w_mlp, 2 * rows * w_mlp, mlp_down_grad_input},
        {"MLP down, weight gradient", most, x + wide + 4 * w_mlp,
         2 * rows * w_mlp, mlp_down_grad_weight},
        {"MLP up, input gradient", most, x + wide + a * w_mlp, 2 * rows * w_mlp,
         mlp_up_grad_input},
        {"MLP up, weight gradient", most, x + wide + 4 * w_mlp,
         2 * rows * w_mlp, mlp_up_grad_weight},
        {"layernorm_grad", 2 * L, 4 * x + rms, 0, layernorm_grad},
        {"out, input gradient", most, 2 * x + a * w_out, 2 * rows * w_out,
         out_grad_input},
        {"out, weight gradient", most, 2 * x + 4 * w_out, 2 * rows * w_out,
         out_grad_weight},
        {"attention_grad", L, 8 * x + lse, 10 * scores, attention_grad},
        {"qkv, input gradient", L, 4 * x + a * w_qkv, 2 * rows * w_qkv,
         qkv_grad_input},
        {"qkv, weight gradient", L, 4 * x + 4 * w_qkv, 2 * rows * w_qkv,
         qkv_grad_weight},
        {"embed_tokens_grad", 1, x + embedded, 0, embed_tokens_grad},
        {"patch embedding, weight gradient", 1,
         columns + embedded + 4 * w_patch, 2 * patches * w_patch,
         patch_embedding_grad},
        {"sum_squares", 1, 4 * N, 0, sum_squares},
        {"adamw", 1, 28 * N + theta_low, 0, adamw},
        {"float_to_act", 0, (4 + a) * N, 0, float_to_act},
        {"fold_fisher", 0, 12 * N, 0, fold_fisher},
        {"ewc_penalty", 0, 20 * N, 0, ewc_penalty},
        {"count_nonfinite", 0, 4 * N, 0, count_nonfinite},
        {"max_magnitude", 0, 20 * N, 0, max_magnitude},
        {"random_delta", 0, 18 * N, 0, random_delta},
        {"add_delta", 0, 16 * N, 0, add_delta},
        {"add_scaled", 0, 12 * N, 0, add_scaled},
    };
    const int n = (int)(sizeof all / sizeof *all);
    for (int i = 0; i < n; i++)
        cases[i] = all[i];
    return n;
}
