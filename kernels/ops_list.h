/*
 * Every op, declared and documented once. Expanded with MM_OP(name, arguments)
 * into table members (kernels/ops.h), prototypes and tables (each backend).
 *
 * Holds for all: matrices are row-major and contiguous unless a stride is
 * given; pointers are device memory of the stream, borrowed until the stream
 * passes the call; outputs overlap no input unless said so; no op allocates;
 * counts of zero are allowed and do nothing (gradients of parameters are then
 * zeroed unless accumulating). Shape letters: B images, T tokens, C width,
 * H heads, D head width, N elements.
 *
 * mm_act is the type of the stream's activations: fp32, or bf16 where the
 * device's precision says so. Sums and statistics are fp32 whatever it is;
 * where a result is an activation it is rounded once, at the end.
 *
 * Ranks    Local, all of them.
 * Timing   Enqueued; may return before the result is there.
 * Repeat   Same bits for the same arguments, whatever the number of threads;
 *          where a matrix product is in it (gemm, linear..., ...logits...),
 *          for the same number of threads.
 * Errors   MM_E_ARG for NULL or negative counts; MM_E_DEVICE if refused.
 *          NaN and infinity pass through as IEEE arithmetic has them.
 */

/**
 * Largest scratch that any op needs for a model of these sizes, for
 * mm_stream_reserve. Host memory; not enqueued.
 */
MM_OP(scratch_bytes,
      (int64_t * n_bytes, int64_t n_tokens, int64_t width, int64_t n_heads))

/* ---- images and tokens ------------------------------------------------- */

/**
 * Normalise images and cut them into patches, ready for the patch-embedding
 * product: columns[b, gy*G+gx, c*P*P + y*P + x]
 *     = (images[b, gy*P+y, gx*P+x, c] / 255 - mean[c]) / std[c],  G = S/P.
 *
 * Shapes   columns [B, G*G, 3*P*P]; images [B, S, S, 3] uint8;
 *          mean, std: host, [3].
 */
MM_OP(patchify, (mm_stream * stream, mm_act *columns, const uint8_t *images,
                 int64_t n_images, int64_t image_size, int64_t patch_size,
                 const float *mean, const float *std))

/**
 * Put the class token in front and add positions:
 * x[b,0] = class + pos[0];  x[b,t] = patches[b,t-1] + pos[t].
 *
 * Shapes   x [B,T,C]; patches [B,T-1,C]; class_embedding [C]; pos [T,C].
 */
MM_OP(embed_tokens, (mm_stream * stream, mm_act *x, const mm_act *patches,
                     const float *class_embedding, const float *pos,
                     int64_t n_images, int64_t n_tokens, int64_t width))

/**
 * Gradient of embed_tokens: dpatches[b,t-1] = dx[b,t];
 * dpos[t] = sum over b of dx[b,t]; dclass = dpos[0]
 * (added to what is there when `accumulate`).
 */
MM_OP(embed_tokens_grad, (mm_stream * stream, mm_act *dpatches, float *dclass,
                          float *dpos, const mm_act *dx, bool accumulate,
                          int64_t n_images, int64_t n_tokens, int64_t width))

/**
 * Look tokens up and add positions: x[b,t] = table[tokens[b,t]] + pos[t].
 *
 * Shapes   x [B,T,C]; tokens [B,T], rows of `table`; table [any, C]; pos [T,C].
 */
MM_OP(embed_text,
      (mm_stream * stream, mm_act *x, const int32_t *tokens, const float *table,
       const float *pos, int64_t n_texts, int64_t n_tokens, int64_t width))

/* ---- products ---------------------------------------------------------- */

/**
 * c = op(a) op(b) + beta c, op transposing where the flag says so.
 *
 * Shapes   c [m,n]; a [m,k], or [k,m] when transpose_a; b [k,n], or [n,k] when
 *          transpose_b. beta is 0 (c is not read) or 1.
 */
MM_OP(gemm, (mm_stream * stream, float *c, const float *a, const float *b,
             bool transpose_a, bool transpose_b, int64_t m, int64_t n,
             int64_t k, float beta))

/**
 * y = x w' + bias (+ residual).
 *
 * Shapes   y, residual [n_rows, n_out]; x [n_rows, n_in]; w [n_out, n_in];
 *          bias [n_out]. bias and residual may be NULL; y may be residual.
 */
MM_OP(linear, (mm_stream * stream, mm_act *y, const mm_act *x, const mm_act *w,
               const mm_act *bias, const mm_act *residual, int64_t n_rows,
               int64_t n_in, int64_t n_out))

/**
 * pre = x w' + bias;  y = activation(pre). Shapes as linear. `pre` may be NULL
 * when no gradient will be asked for.
 */
MM_OP(linear_act,
      (mm_stream * stream, mm_act *y, mm_act *pre, const mm_act *x,
       const mm_act *w, const mm_act *bias, mm_activation activation,
       int64_t n_rows, int64_t n_in, int64_t n_out))

/** dx = dy w. Shapes as linear. */
MM_OP(linear_grad_input,
      (mm_stream * stream, mm_act *dx, const mm_act *dy, const mm_act *w,
       int64_t n_rows, int64_t n_in, int64_t n_out))

/**
 * Through a linear layer and the activation below it:
 * dpre = (dy w) * activation'(pre);  dbias = sum of dpre over rows, the
 * gradient of the bias that pre holds (added to what is there when
 * `accumulate`).
 *
 * Shapes   dpre, pre [n_rows, n_in]; dbias [n_in], NULL where not wanted; dy
 *          [n_rows, n_out]; w [n_out, n_in].
 */
MM_OP(linear_grad_act,
      (mm_stream * stream, mm_act *dpre, float *dbias, const mm_act *dy,
       const mm_act *w, const mm_act *pre, mm_activation activation,
       bool accumulate, int64_t n_rows, int64_t n_in, int64_t n_out))

/**
 * dw = dy' x;  dbias = column sums of dy (added to what is there when
 * `accumulate`). dbias may be NULL.
 */
MM_OP(linear_grad_weight, (mm_stream * stream, float *dw, float *dbias,
                           const mm_act *dy, const mm_act *x, bool accumulate,
                           int64_t n_rows, int64_t n_in, int64_t n_out))

/* ---- layer norm and attention ------------------------------------------ */

/**
 * y = gamma (x - mean) rstd + beta over the last dimension
 * (Ba, Kiros and Hinton 2016).
 *
 * Shapes   y [n_rows, C]; x: rows of C that start `x_stride` elements apart;
 *          mean, rstd [n_rows], kept for the gradient, NULL where none is
 *          needed.
 */
MM_OP(layernorm, (mm_stream * stream, mm_act *y, float *mean, float *rstd,
                  const mm_act *x, int64_t x_stride, const float *gamma,
                  const float *beta, float eps, int64_t n_rows, int64_t width))

/**
 * Gradient of layernorm, plus what arrives past it: dx = residual + dL/dx;
 * dbias = sum of dx over rows, the gradient of the bias of the layer that made
 * x.
 *
 * Shapes   dx, residual: rows `x_stride` apart, as x; dy [n_rows, C]; dgamma,
 *          dbeta, dbias [C]. residual may be NULL or dx; dbias is NULL where
 *          not wanted. dgamma, dbeta and dbias are added to what is there when
 *          `accumulate`. Elements of dx between rows are untouched.
 */
MM_OP(layernorm_grad,
      (mm_stream * stream, mm_act *dx, float *dgamma, float *dbeta,
       float *dbias, const mm_act *residual, const mm_act *dy, const mm_act *x,
       int64_t x_stride, const float *mean, const float *rstd,
       const float *gamma, bool accumulate, int64_t n_rows, int64_t width))

/**
 * Multi-head self-attention: out_h = softmax(q_h k_h' / sqrt(D)) v_h.
 *
 * Shapes   out [B,T,C]; lse [B,H,T], log of each row's sum of exponentials,
 *          kept for the gradient, NULL where none is needed; qkv [B,T,3C], a
 *          token's q, k and v each head by head; C = H D. With `causal`, token
 *          i sees tokens 0..i only.
 */
MM_OP(attention, (mm_stream * stream, mm_act *out, float *lse,
                  const mm_act *qkv, bool causal, int64_t n_images,
                  int64_t n_tokens, int64_t width, int64_t n_heads))

/**
 * Gradient of attention. The probabilities are computed again from lse, not
 * stored. dbias = sum of dqkv over images and tokens, the gradient of the bias
 * that qkv holds (added to what is there when `accumulate`).
 *
 * Shapes   dqkv [B,T,3C]; dbias [3C], NULL where not wanted.
 */
MM_OP(attention_grad,
      (mm_stream * stream, mm_act *dqkv, float *dbias, const mm_act *dout,
       const mm_act *out, const float *lse, const mm_act *qkv, bool causal,
       bool accumulate, int64_t n_images, int64_t n_tokens, int64_t width,
       int64_t n_heads))

/* ---- head and loss ----------------------------------------------------- */

/**
 * logits = f head' / |f|.
 *
 * Shapes   logits [B, n_classes]; inv_norm [B], 1/|f|, kept for the gradient;
 *          features [B, E]; head [n_classes, E].
 */
MM_OP(normalized_logits,
      (mm_stream * stream, float *logits, float *inv_norm,
       const float *features, const float *head, int64_t n_images,
       int64_t embed_dim, int64_t n_classes))

/** dfeatures = (g - u (u.g)) / |f|,  g = dlogits head,  u = f / |f|. */
MM_OP(normalized_logits_grad,
      (mm_stream * stream, float *dfeatures, const float *dlogits,
       const float *features, const float *inv_norm, const float *head,
       int64_t n_images, int64_t embed_dim, int64_t n_classes))

/**
 * Cross-entropy with label smoothing, summed over the images:
 * loss_sum = sum over b of (1-s) (-log p[label]) + s mean over c of (-log p_c);
 * dlogits = grad_scale * d loss_sum / d logits.
 *
 * Shapes   loss_sum: one double; dlogits, logits [B, n_classes]; labels [B],
 *          each in [0, n_classes). With B = 0, loss_sum becomes 0.
 * Repeat   An image whose loss is NaN or infinite has NaN among its dlogits, so
 *          that no such loss goes with a finite gradient.
 */
MM_OP(softmax_cross_entropy,
      (mm_stream * stream, double *loss_sum, float *dlogits,
       const float *logits, const int32_t *labels, float smoothing,
       float grad_scale, int64_t n_images, int64_t n_classes))

/**
 * Distillation loss of Learning without Forgetting (Li and Hoiem 2016, section
 * 3.2), summed over the images: with t = softmax(old_logits / temperature) and
 * s = (softmax(logits / temperature) + eps) / (1 + eps n_classes), eps =
 * 1e-5 / n_classes, which bounds the logarithm,
 *     loss_sum = sum over b and c of -t log s;
 *     dlogits = grad_scale * d loss_sum / d logits
 * (added to what is there when `accumulate`).
 *
 * Shapes   loss_sum: one double; dlogits, logits: rows of n_classes that start
 *          `stride` elements apart, so that they may be some of the columns of
 *          logits for more classes; old_logits [B, n_classes]. Elements of
 *          dlogits between rows are untouched. temperature > 0. With B = 0,
 *          loss_sum becomes 0.
 */
MM_OP(distillation_loss,
      (mm_stream * stream, double *loss_sum, float *dlogits,
       const float *logits, int64_t stride, const float *old_logits,
       float temperature, float grad_scale, bool accumulate, int64_t n_images,
       int64_t n_classes))

/* ---- rows and flat buffers --------------------------------------------- */

/**
 * Gather or scatter rows: to[i * to_stride + j] = from[i * from_stride + j].
 *
 * Shapes   n_rows rows of `width` elements; strides in elements, at least
 *          `width`. What lies between the rows of `to` is untouched.
 */
MM_OP(copy_rows,
      (mm_stream * stream, mm_act *to, int64_t to_stride, const mm_act *from,
       int64_t from_stride, int64_t n_rows, int64_t width))

/**
 * Pick rows: to[i] = from[index[i]].
 *
 * Shapes   to [n_rows, width]; from: rows of `width`; index [n_rows].
 */
MM_OP(gather_rows, (mm_stream * stream, mm_act *to, const mm_act *from,
                    const int64_t *index, int64_t n_rows, int64_t width))

MM_OP(fill, (mm_stream * stream, float *x, float value, int64_t n_elems))
MM_OP(fill_act, (mm_stream * stream, mm_act *x, float value, int64_t n_elems))

/** to = from, rounded to nearest, ties to even; a copy where both are fp32. */
MM_OP(float_to_act,
      (mm_stream * stream, mm_act *to, const float *from, int64_t n_elems))

/** to = from, exactly. */
MM_OP(act_to_float,
      (mm_stream * stream, float *to, const mm_act *from, int64_t n_elems))

/** *sum = sum of x[i]^2, accumulated in fp64 in a fixed order. */
MM_OP(sum_squares,
      (mm_stream * stream, double *sum, const float *x, int64_t n_elems))

/** *count = how many of x are NaN or infinite. */
MM_OP(count_nonfinite,
      (mm_stream * stream, int64_t *count, const float *x, int64_t n_elems))

/**
 * One AdamW step behind clipping to norm `clip`, with n = sqrt(*grad_squares):
 * g = grad * min(1, clip / (n + 1e-6)), or grad where clip is 0;
 * theta -= lr * weight_decay * theta;
 * m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2;
 * theta -= lr * (m / bias1) / (sqrt(v / bias2) + eps); theta_low = theta, as
 * float_to_act has it. Where n is NaN or infinite, nothing changes.
 *
 * Memory   theta_low may be NULL.
 */
MM_OP(adamw,
      (mm_stream * stream, float *theta, float *m, float *v, mm_act *theta_low,
       const float *grad, const mm_adamw *step, int64_t n_elems))

/**
 * Fold one gradient into a diagonal Fisher information:
 * fisher = keep * fisher + scale * grad^2, each operation rounded to fp32.
 *
 * keep = 1 adds a batch; the first batch of a task with keep < 1 fades earlier
 * tasks in the same pass. No fused multiply-add, same bits on every backend.
 */
MM_OP(fold_fisher, (mm_stream * stream, float *fisher, const float *grad,
                    float keep, float scale, int64_t n_elems))

/**
 * Elastic weight consolidation (Kirkpatrick et al. 2017, equation 3): with
 * d = theta - old,
 *     penalty = lambda / 2 * sum of fisher d^2, in fp64 in a fixed order;
 *     grad += lambda * (fisher * d), each operation rounded to fp32, no fused
 *     multiply-add, same bits on every backend.
 *
 * Shapes   penalty: one double; the others [n_elems].
 */
MM_OP(ewc_penalty,
      (mm_stream * stream, double *penalty, float *grad, const float *theta,
       const float *old, const float *fisher, float lambda, int64_t n_elems))

/* ---- merging: no fused multiply-add, same bits on every backend --------- */

/**
 * Fold one task's weight change into the running max-magnitude merge
 * (MagMax, Marczak et al. 2024, section 4).
 *
 * For each i, d = tuned[i] - base[i]; where |d| >= |best[i]|, best[i] becomes d
 * and winner[i] becomes `task`. The >= lets the task folded last win ties, so
 * callers fold in task order, starting from best = 0.
 */
MM_OP(max_magnitude,
      (mm_stream * stream, float *best, uint16_t *winner, const float *tuned,
       const float *base, uint16_t task, int64_t n_elems))

/** sum += tuned - base. */
MM_OP(add_delta, (mm_stream * stream, float *sum, const float *tuned,
                  const float *base, int64_t n_elems))

/**
 * Fold one task into a random mix: where winner[i] == task, tau[i] =
 * tuned[i] - base[i]. Task 0, which is folded first, draws the winners:
 * winner[i] = mm_rng_below(key (seed, MM_RNG_MERGE), first_elem + i, n_tasks),
 * a function of seed and element only.
 */
MM_OP(random_delta,
      (mm_stream * stream, float *tau, uint16_t *winner, const float *tuned,
       const float *base, uint16_t task, uint16_t n_tasks, uint64_t seed,
       int64_t first_elem, int64_t n_elems))

/** out = base + coef * (tau / divisor), each operation rounded to fp32; out may
 * be base. */
MM_OP(add_scaled,
      (mm_stream * stream, float *out, const float *base, const float *tau,
       float divisor, float coef, int64_t n_elems))
