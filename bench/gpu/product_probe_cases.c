/* Which products a training step in bf16 has, with which epilogues. */
#include "bench/gpu/product_probe.h"

typedef struct layer {
    const char *name;
    int64_t rows, n_in, n_out, calls;
    bool bias, residual, input_grad;
} layer;

/** Set in a case for what the product is to have. */
static const float something;

static void add(probe_case cases[], int *n, probe_case c, const char *pass,
                mm_cuda_product product, cublasLtEpilogue_t epilogue,
                bool in_use)
{
    c.pass = pass;
    c.product = product;
    c.epilogue = epilogue;
    c.in_use = in_use;
    cases[(*n)++] = c;
}

/** With the bias in an epilogue and, for where the library refuses that, in
 * what the product is added to. */
static void add_forward(probe_case cases[], int *n, probe_case c,
                        const layer *of)
{
    mm_cuda_product p =
        mm_cuda_product_forward(CUDA_R_16BF, of->rows, of->n_in, of->n_out);
    p.addend = of->residual ? &something : NULL;
    if (!of->bias) {
        add(cases, n, c, "forward", p, CUBLASLT_EPILOGUE_DEFAULT, true);
        return;
    }
    p.bias = &something;
    add(cases, n, c, "forward", p, CUBLASLT_EPILOGUE_BIAS, true);
    p.bias = NULL;
    p.addend = &something;
    add(cases, n, c, "forward", p, CUBLASLT_EPILOGUE_DEFAULT, false);
}

static void add_backward(probe_case cases[], int *n, probe_case c,
                         const layer *of)
{
    mm_cuda_product p =
        mm_cuda_product_weight_grad(CUDA_R_16BF, of->rows, of->n_in, of->n_out);
    add(cases, n, c, "weight gradient", p, CUBLASLT_EPILOGUE_DEFAULT, true);
    p.a_sums = (float *)&something;
    if (of->bias)
        add(cases, n, c, "weight gradient", p, CUBLASLT_EPILOGUE_BGRADB, false);
    if (of->input_grad)
        add(cases, n, c, "input gradient",
            mm_cuda_product_input_grad(CUDA_R_16BF, of->rows, of->n_in,
                                       of->n_out),
            CUBLASLT_EPILOGUE_DEFAULT, true);
}

/* The last block has one row per image after attention: too little to time. */
int probe_cases(const char *model, const mm_model_config *config, int64_t batch,
                probe_case cases[])
{
    const mm_tower_config *t = &config->image;
    const int64_t w = t->width, f = t->mlp_width, n_layers = t->n_layers;
    const int64_t rows = batch * t->n_tokens;
    const int64_t pixels = 3 * config->patch_size * config->patch_size;
    const layer layers[] = {
        {"patch embedding", batch * (t->n_tokens - 1), pixels, w, 1, false,
         false, false},
        {"qkv", rows, w, 3 * w, n_layers, true, false, true},
        {"out", rows, w, w, n_layers - 1, true, true, true},
        {"MLP up", rows, w, f, n_layers - 1, true, false, true},
        {"MLP down", rows, f, w, n_layers - 1, true, true, true},
    };
    int n = 0;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const probe_case c = {.model = model,
                              .batch = batch,
                              .layer = layers[i].name,
                              .calls = layers[i].calls};
        add_forward(cases, &n, c, &layers[i]);
        add_backward(cases, &n, c, &layers[i]);
    }
    return n;
}

double probe_flop(const probe_case *c)
{
    return 2.0 * (double)c->product.m * (double)c->product.n *
           (double)c->product.k;
}
